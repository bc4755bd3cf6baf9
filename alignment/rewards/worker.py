"""The process that calls rewards (`main`), started by `rewards.runner`, and how one reward is found and called.

It talks over one connection: receives how to find the rewards, answers whether that worked, and then answers each
(function number, prompt, completion, record) with ("ok", float) or (kind of failure, message). Only these plain values
are sent back, so that nothing that a reward returns can break the connection.
"""

import importlib
import importlib.util
import inspect
import math
import multiprocessing.connection
import numbers
import pickle
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

KINDS = ("exception", "none", "not_a_number", "not_finite", "time_out", "died")
_MESSAGE = 300  # characters
_LARGEST = float(np.finfo(np.float32).max)

Outcome = tuple[str, float | str]


def load(reference: tuple[str, Any]) -> Callable[..., Any]:
    """The function of a reference that `runner` made: by module and name, by file and name, pickled, or itself.

    Raises:
      ValueError: it cannot be imported, is not there, or cannot be called with (prompt, completion, record).
    """
    how, what = reference
    if how == "object":
        return what
    if how == "pickle":
        try:
            function = pickle.loads(what)
        except Exception as error:
            raise ValueError(f"reward cannot be unpickled in a worker process: {_short(error)}") from error
    else:
        source, name = what
        try:
            module = importlib.import_module(source) if how == "module" else _from_file(source)
        except BaseException as error:  # Importing runs foreign code, which may even call sys.exit.
            if isinstance(error, KeyboardInterrupt):
                raise
            raise ValueError(f"reward '{source}:{name}': cannot import {source!r}: {_short(error)}") from error
        function = module
        for part in name.split("."):
            if not hasattr(function, part):
                has = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
                raise ValueError(
                    f"reward '{source}:{name}': {source!r} has no {name!r}; it has: {', '.join(has[:20]) or 'nothing'}"
                )
            function = getattr(function, part)
    check_signature(function)
    return function


def check_signature(function: Any) -> None:
    """Raises ValueError if a function cannot be called as a reward."""
    name = getattr(function, "__name__", repr(function))
    if not callable(function):
        raise ValueError(f"reward {name} must be a function, got {type(function).__name__}")
    if inspect.isclass(function):
        raise ValueError(f"reward {name} is a class; give an instance of it, or a function")
    try:
        signature = inspect.signature(function)
    except ValueError:  # Some built-in functions have none.
        return
    try:
        signature.bind("", "", {})
    except TypeError as error:
        raise ValueError(f"reward {name}{signature} must accept (prompt, completion, record): {error}") from error


def call(function: Callable[..., Any], prompt: str, completion: str, record: Mapping[str, Any]) -> Outcome:
    """("ok", value) of one reward, or (kind, message); raises nothing but KeyboardInterrupt."""
    try:
        value = function(prompt, completion, record)
        if value is None:
            return "none", "returned None"
        if isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0:
            value = value.item()
        if not isinstance(value, numbers.Real):
            return "not_a_number", f"returned {type(value).__name__} {_cut(repr(value))}"
        number = float(value)
    except KeyboardInterrupt:
        raise
    except OverflowError as error:
        return "not_finite", _short(error)
    except BaseException as error:  # sys.exit in a reward must not end the run either
        return "exception", _short(error)
    # What is finite only in float64 would be infinite in the batch.
    if not math.isfinite(number) or abs(number) > _LARGEST:
        return "not_finite", f"returned {number}"
    return "ok", number


def _from_file(path: str) -> Any:
    name = f"alignment_reward_file_{abs(hash(path))}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _short(error: BaseException) -> str:
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # an exception whose text raises
        text = type(error).__name__
    return _cut(text)


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MESSAGE else text[: _MESSAGE - 3] + "..."


def main() -> None:
    connection = multiprocessing.connection.Connection(int(sys.argv[1]))
    # Ctrl-C belongs to the run, which closes its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        references, time_limit = connection.recv()
        try:
            functions = [load(reference) for reference in references]
        except ValueError as error:
            connection.send(("error", str(error)))
            return
        connection.send(("ready", ""))
        while True:
            data = connection.recv_bytes()
            # The run kills a worker that is late. Should the run itself be gone by then, the kernel does.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, 2 * time_limit + 10)
            try:
                number, *arguments = pickle.loads(data)
            except Exception as error:
                outcome = "exception", f"the record cannot be read in a worker: {_short(error)}"
            else:
                outcome = call(functions[number], *arguments)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(outcome)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # The run has closed its end.
