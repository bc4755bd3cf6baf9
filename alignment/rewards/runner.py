"""Calls rewards on the host: in worker processes with a time limit each, and nothing that they do stops the run.

    with RewardRunner(["alignment.rewards.tasks:reward", my_reward], [1.0, 0.1], workers=4, time_limit=5.0) as runner:
        result = runner(prompts, completions, records)   # result.rewards [N], result.failed [N]
        print(result.report)                             # rewards: 256 calls in 0.1 s, 2 failed (time_out 2: ...)

What a reward returns must be a finite number (true and false count as 1 and 0). A call that fails gives `on_failure`
for that function and is counted by kind:

| kind           | what happened                                                        |
|----------------|----------------------------------------------------------------------|
| `exception`    | the reward raised (sys.exit included), or its record cannot be sent  |
| `none`         | it returned None                                                     |
| `not_a_number` | it returned text, a list ...                                         |
| `not_finite`   | it returned NaN, an infinity, or more than float32 holds             |
| `time_out`     | it took longer than `time_limit`; its process was killed             |
| `died`         | its process ended: killed for memory, a crash in native code ...     |

With `workers=0` rewards run in this process, one after the other: right for the fast rewards of this package, but
there `time_limit` protects nothing and `time_out` and `died` cannot occur.

Workers are new interpreters and not forks (a fork of a process that runs JAX can deadlock), and they do not import the
main script, as multiprocessing would: a reward must be importable, or picklable. They see JAX_PLATFORMS=cpu unless
`environment` says otherwise, so that no reward takes the accelerator from the run. They need a POSIX system.
"""

import collections
import contextlib
import dataclasses
import functools
import inspect
import math
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np

from alignment.rewards import worker
from alignment.rewards.worker import KINDS, Outcome

_MAIN = "import sys; sys.path[:] = sys.argv[2:]; from alignment.rewards import worker; worker.main()"
_START_LIMIT = 120.0  # seconds for a worker to import the rewards
_MAX_STARTS = 3  # failed starts in a row after which a batch goes on without new workers


@dataclasses.dataclass(frozen=True)
class RewardReport:
    """How many calls failed, by kind, with the first message of each kind (in the order of the batch)."""

    calls: int = 0
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    first: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        return sum(self.counts.values())

    def __add__(self, other: "RewardReport") -> "RewardReport":
        counts = {k: self.counts.get(k, 0) + other.counts.get(k, 0) for k in KINDS}
        return RewardReport(
            self.calls + other.calls,
            {kind: count for kind, count in counts.items() if count},
            {**other.first, **self.first},
            self.seconds + other.seconds,
        )

    def __str__(self) -> str:
        line = f"rewards: {self.calls} calls in {self.seconds:.1f} s, {self.failed} failed"
        kinds = [f"{kind} {self.counts[kind]}: {self.first[kind]}" for kind in KINDS if self.counts.get(kind)]
        return f"{line} ({'; '.join(kinds)})" if kinds else line

    def metrics(self) -> dict[str, float]:
        """Shares of all calls by kind, zeros included, so that a log has the same columns at each step."""
        return {f"reward_failures/{kind}": self.counts.get(kind, 0) / max(1, self.calls) for kind in KINDS}


@dataclasses.dataclass(frozen=True)
class Rewards:
    """rewards [N] float32: the weighted sum; by_function [N, F] float32, unweighted, `on_failure` where failed;
    failed [N] bool: one of the functions failed; failed_by_function [N, F] bool."""

    rewards: np.ndarray
    by_function: np.ndarray
    failed: np.ndarray
    report: RewardReport
    failed_by_function: np.ndarray


def concatenated(parts: Sequence[Rewards]) -> Rewards:
    """The rewards of several batches as one; messages keep the number that their completion had in its batch."""
    fields = ("rewards", "by_function", "failed", "failed_by_function")
    columns = {name: np.concatenate([getattr(p, name) for p in parts]) for name in fields}
    return Rewards(**columns, report=sum((p.report for p in parts[1:]), parts[0].report))


class RewardRunner:
    """One or several weighted rewards over batches. Use as a context manager, or call `close`."""

    def __init__(
        self,
        functions: str | Callable[..., float] | Sequence[str | Callable[..., float]],
        weights: Sequence[float] | None = None,
        *,
        workers: int = 0,
        time_limit: float = 5.0,
        on_failure: float = 0.0,
        environment: Mapping[str, str] | None = None,
    ):
        """Imports the rewards (in the workers, if there are any).

        Args:
          functions: each a function or "package.module:function".
          weights: one for each function; default: all 1.
          workers: processes; 0 calls the rewards in this process, without protection from hanging ones.
          time_limit: seconds for one call of one function.
          on_failure: what a failed call is worth, before its weight.
          environment: variables of the workers, beside those of this process.

        Raises:
          ValueError: a reward cannot be imported or called with (prompt, completion, record), or an argument is out of
            its range.
        """
        functions = [functions] if isinstance(functions, str) or callable(functions) else list(functions)
        weights = [1.0] * len(functions) if weights is None else [float(weight) for weight in weights]
        if not functions:
            raise ValueError("functions must name at least one reward")
        if len(weights) != len(functions):
            raise ValueError(f"{len(functions)} reward functions with {len(weights)} weights; must be equal")
        if not all(map(math.isfinite, [*weights, on_failure])):
            raise ValueError(f"weights and on_failure must be finite, got {weights} and {on_failure}")
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
            raise ValueError(f"workers must be an integer in [0, inf), got {workers!r}")
        if not 0 < time_limit < math.inf:
            raise ValueError(f"time_limit must lie in (0, inf) seconds, got {time_limit}")
        self.weights, self.on_failure, self.time_limit = np.array(weights), float(on_failure), float(time_limit)
        self.names = [function_name(function) for function in functions]
        references = [_reference(function, bool(workers)) for function in functions]
        self._functions = None if workers else [worker.load(reference) for reference in references]
        self._setup = (references, self.time_limit, dict(environment or {}))
        self._workers: list[_Worker] = []
        self._size = workers
        # Also runs when the runner is garbage and when the interpreter ends.
        self._finalizer = weakref.finalize(self, _stop_all, self._workers)
        if workers:
            try:
                self._workers += [_Worker(*self._setup) for _ in range(workers)]
                for one in self._workers:
                    one.wait_until_ready()
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> "RewardRunner":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers and waits for them. Closing twice is fine; calling afterwards is not."""
        self._size = -1
        self._finalizer()

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], records: Sequence[Mapping[str, Any]]
    ) -> Rewards:
        """Rewards of a batch, in its order."""
        if self._size < 0:
            raise ValueError("this RewardRunner is closed")
        if not len(prompts) == len(completions) == len(records):
            raise ValueError(f"{len(prompts)} prompts, {len(completions)} completions, {len(records)} records")
        began = time.monotonic()
        jobs = [(f, *item) for item in zip(prompts, completions, records, strict=True) for f in range(len(self.names))]
        if self._functions is not None:
            outcomes = [worker.call(self._functions[f], *arguments) for f, *arguments in jobs]
        else:
            outcomes = self._in_workers(jobs)
        values = np.full((len(prompts), len(self.names)), self.on_failure)
        failed = np.zeros(values.shape, bool)
        counts: collections.Counter[str] = collections.Counter()
        first: dict[str, str] = {}
        for number, (kind, value) in enumerate(outcomes):
            row, column = divmod(number, len(self.names))
            if kind == "ok":
                values[row, column] = value
                continue
            failed[row, column] = True
            counts[kind] += 1
            first.setdefault(kind, f"{self.names[column]}, completion {row}: {value}")
        report = RewardReport(len(jobs), dict(counts), first, time.monotonic() - began)
        summed = (values @ self.weights).astype(np.float32)
        return Rewards(summed, values.astype(np.float32), failed.any(1), report, failed)

    def _in_workers(self, jobs: Sequence[tuple[Any, ...]]) -> list[Outcome]:
        outcomes: list[Outcome | None] = [None] * len(jobs)
        waiting = collections.deque(range(len(jobs)))
        failed_starts = 0
        try:
            while waiting or any(one.job is not None for one in self._workers):
                # Replace what was killed, here or in an earlier batch, as long as there is work for it.
                while len(self._workers) < min(self._size, len(waiting)) and failed_starts < _MAX_STARTS:
                    try:
                        self._workers.append(_Worker(*self._setup))
                    except OSError:  # no memory or no process to be had
                        failed_starts += 1
                if not self._workers:
                    while waiting:
                        outcomes[waiting.popleft()] = "died", "no worker process can be started"
                    break
                for one in list(self._workers):
                    while waiting and one.ready and one.job is None:
                        number = waiting.popleft()
                        try:
                            one.send(number, jobs[number])
                        except OSError:  # It died while it had nothing to do; the job goes to another.
                            waiting.appendleft(number)
                            one.stop()
                            self._workers.remove(one)
                            break
                        except Exception as error:  # Pickling runs code of the record's classes.
                            outcomes[number] = "exception", f"the record cannot be sent to a worker: {error!r}"
                for one in self._wait():
                    was_ready, number, outcome = one.ready, one.job, one.poll()
                    if number is not None and outcome is not None:
                        outcomes[number] = outcome
                    if one.stopped:
                        self._workers.remove(one)
                        failed_starts += not was_ready
                    elif one.ready and not was_ready:
                        failed_starts = 0
        except BaseException:
            # An interrupted batch leaves answers on the way that would be taken for those of the next one.
            for one in [one for one in self._workers if one.job is not None]:
                one.stop()
                self._workers.remove(one)
            raise
        return outcomes

    def _wait(self) -> list["_Worker"]:
        """Workers that have said something, have ended, or are late."""
        until = min((one.deadline for one in self._workers), default=math.inf)
        # Without a deadline no worker has anything to do, and nothing would be said.
        timeout = 0.0 if until == math.inf else max(0.0, until - time.monotonic())
        said = multiprocessing.connection.wait([one.connection for one in self._workers], timeout)
        now = time.monotonic()
        return [one for one in self._workers if one.connection in said or one.deadline <= now]


class _Worker:
    """One process and the job that it has, if any."""

    def __init__(self, references: list[tuple[str, Any]], time_limit: float, environment: Mapping[str, str]):
        self.time_limit = time_limit
        self.ready = self.stopped = False
        self.job: int | None = None
        self.deadline = time.monotonic() + _START_LIMIT
        self.connection, theirs = multiprocessing.Pipe()
        # Not by PYTHONPATH, which programs that a reward starts would inherit.
        paths = [os.path.abspath(path) for path in sys.path]
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, str(theirs.fileno()), *paths],
                env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # its own group, so that what a reward starts is killed with it
            )
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()
        with contextlib.suppress(BrokenPipeError):  # Already gone: `poll` will say so.
            self.connection.send((references, time_limit))

    def wait_until_ready(self) -> None:
        if not self.ready:
            self.connection.poll(max(0.0, self.deadline - time.monotonic()))
            outcome = self.poll()
            if not self.ready:
                raise ValueError(outcome[1] if outcome else "a reward worker did not start")

    def send(self, number: int, job: tuple[Any, ...]) -> None:
        message = ForkingPickler.dumps(job)
        # Before it is sent: an interrupt right after must find a worker that has something to do.
        self.job, self.deadline = number, time.monotonic() + self.time_limit
        self.connection.send_bytes(message)

    def poll(self) -> Outcome | None:
        """Reads what the process has said; ends it if it is late or gone. The outcome belongs to the job it had."""
        try:
            if self.connection.poll():
                kind, value = self.connection.recv()
                self.job, self.deadline = None, math.inf
                if self.ready:
                    return kind, value
                self.ready = kind == "ready"
                if not self.ready:
                    self.stop()
                    return "died", value
                return None
        except (EOFError, OSError, pickle.UnpicklingError):
            code = self.stop()
            return "died", f"its process ended {f'by signal {-code}' if code < 0 else f'with code {code}'}"
        if time.monotonic() >= self.deadline:
            self.stop()
            if not self.ready:
                return "died", f"its process did not start within {_START_LIMIT:g} s"
            return "time_out", f"took longer than time_limit={self.time_limit:g} s"
        return None

    def stop(self) -> int:
        """Kills the process and its children and waits for it; returns its exit code. Stopping twice is fine."""
        if self.process.returncode is not None:
            return self.process.returncode
        late = self.job is not None and time.monotonic() >= self.deadline
        self.stopped = True
        self.connection.close()  # On this an idle worker ends by itself; a crashed one is about to end.
        patience = time.monotonic() + (0.0 if late else 1.0)
        while not self._ended() and time.monotonic() < patience:
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # Before `wait`, which would give the number of the process, and so of the group, back to the system.
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()

    def _ended(self) -> bool:
        if not hasattr(os, "waitid"):
            return False
        try:
            return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # something else in this process has waited for it
            return True


def function_name(function: str | Callable[..., float]) -> str:
    """A short name for logs."""
    if isinstance(function, str):
        return function.rpartition(":")[2]
    if isinstance(function, functools.partial):
        return function_name(function.func)
    return getattr(function, "__name__", type(function).__name__)


def _reference(function: str | Callable[..., float], for_workers: bool) -> tuple[str, Any]:
    """How a process finds a reward: ("module", (module, name)), ("file", (path, name)) or ("pickle", bytes)."""
    if isinstance(function, str):
        module, colon, name = function.partition(":")
        if not (colon and module and name):
            raise ValueError(f"reward {function!r} must be written package.module:function")
        return "module", (module, name)
    worker.check_signature(function)
    if not for_workers:
        return "object", function
    name = getattr(function, "__qualname__", "")
    if inspect.isfunction(function) and "<" not in name:
        module = sys.modules.get(function.__module__)
        in_main = function.__module__ == "__main__"
        if module is not None and not in_main and getattr(module, "__spec__", None) is not None:
            return "module", (function.__module__, name)
        # Of the main script, or of a config file, which has been executed under a name of no module.
        path = inspect.getsourcefile(function)
        if path and os.path.exists(path):
            return "file", (os.path.abspath(path), name)
    try:
        data = pickle.dumps(function)
    except Exception as error:
        data, why = None, error
    else:
        why = "it is defined in the main script"
    if data is None or b"__main__" in data:
        raise ValueError(
            f"reward {function_name(function)} cannot be sent to worker processes ({why}): define it at the top level "
            "of a module, or set workers=0"
        )
    return "pickle", data


def _stop_all(workers: list[_Worker]) -> None:
    for one in workers:
        one.connection.close()
    while workers:
        workers.pop().stop()
