"""Orbax checkpoints of the whole run: state, data position and a description that guards against mixing up models."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from orbax.checkpoint import checkpoint_managers


class _Manager(ocp.CheckpointManager):
    started: int | None = None  # the step of the last save, for the message of an error that its thread meets later


def quieten_writers() -> None:
    """Orbax' threads log a traceback of what they then re-raise to us; once, in one line of ours, is enough."""

    def is_news(record: logging.LogRecord) -> bool:
        trace = record.exc_info[2] if record.exc_info else None
        return not any("orbax" in frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace))

    absl_logging.get_absl_handler().addFilter(is_news)
    logging.getLogger("asyncio").addFilter(is_news)
    previous = sys.unraisablehook

    def hook(unraisable):
        # tensorstore answers to the event loop that orbax has closed after the first write that failed.
        if not isinstance(unraisable.exc_value, RuntimeError) or str(unraisable.exc_value) != "Event loop is closed":
            previous(unraisable)

    sys.unraisablehook = hook


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or written; the message names the step and the directory."""


def open_manager(directory: str | os.PathLike, *, keep_last: int = 1, best_metric: str = "", best_mode: str = "max"):
    """A manager that keeps the last checkpoints and, with `best_metric`, the best one, never dropping the newest."""
    if best_mode not in ("max", "min"):
        raise ValueError(f"config.checkpoints.best_mode: {best_mode!r} is not one of max, min")
    policies: list[Any] = [checkpoint_managers.LatestN(keep_last)]
    best_fn = None
    if best_metric:

        def best_fn(metrics):
            return metrics[best_metric]

        # `reverse` in BestN's sense: keep the smallest.
        policies.append(checkpoint_managers.BestN(get_metric_fn=best_fn, n=1, reverse=best_mode == "min"))
    options = ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
        best_fn=best_fn,
        best_mode=best_mode,
        create=True,
        enable_async_checkpointing=True,
    )
    return _Manager(Path(directory).absolute(), options=options)


def save(manager, step: int, state: Any, data_iterator: Any, description: dict, metrics: dict | None = None) -> None:
    """Starts writing a checkpoint once the one before has landed; `wait` makes sure that this one has, too."""
    wait(manager)
    args = {"state": ocp.args.StandardSave(state), "description": ocp.args.JsonSave(description)}
    if data_iterator is not None:
        args["data"] = grain.checkpoint.CheckpointSave(data_iterator)
    manager.started = step
    try:
        manager.save(step, args=ocp.args.Composite(**args), metrics=metrics)
    except OSError as error:
        raise CheckpointError(_explain(error, "write", step, manager.directory)) from error


def wait(manager) -> None:
    """Returns when every checkpoint that was started is whole on disk."""
    try:
        manager.wait_until_finished()
    except Exception as error:  # orbax re-raises what its writer thread met; its class depends on the file system layer
        raise CheckpointError(_explain(error, "write", manager.started, manager.directory)) from error


def _explain(error: BaseException, verb: str, step: int | None, directory: Any) -> str:
    kept = "; checkpoints finished before are untouched" if verb == "write" else ""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"could not {verb} the checkpoint of step {step} in {directory}: {reason}{kept}"


def _mismatch(saved: dict, wanted: dict) -> str:
    differing = [k for k in sorted({*saved, *wanted}) if saved.get(k) != wanted.get(k)]
    return ", ".join(f"{k} is {saved.get(k)!r} there and {wanted.get(k)!r} here" for k in differing)


def read_description(manager, step: int) -> dict:
    try:
        return manager.restore(step, args=ocp.args.Composite(description=ocp.args.JsonRestore()))["description"]
    except Exception as error:
        raise CheckpointError(
            f"{_explain(error, 'read', step, manager.directory)}; remove or replace that step to go on from an earlier "
            "one"
        ) from error


def restore(manager, step: int, abstract_state: Any, data_iterator: Any, description: dict) -> Any:
    """The state of `step`, placed as `abstract_state`'s shardings say (on any mesh); the iterator is moved in place."""
    saved = read_description(manager, step)
    if saved["model"] != description["model"]:
        raise CheckpointError(
            f"the checkpoint of step {step} in {manager.directory} is of another model: "
            f"{_mismatch(saved['model'], description['model'])}"
        )
    if saved["objective"] != description["objective"]:
        raise CheckpointError(
            f"the checkpoint of step {step} in {manager.directory} belongs to another run: "
            f"{_mismatch(saved['objective'], description['objective'])}; choose another --workdir"
        )
    args = {"state": ocp.args.StandardRestore(abstract_state)}
    if data_iterator is not None:
        args["data"] = grain.checkpoint.CheckpointRestore(data_iterator)
    try:
        return manager.restore(step, args=ocp.args.Composite(**args))["state"]
    except Exception as error:
        raise CheckpointError(
            f"{_explain(error, 'read', step, manager.directory)}; the file is damaged or incomplete: remove that step "
            "to go on from an earlier one"
        ) from error


def restore_params(directory: str | os.PathLike, abstract_params: Any, model: dict, step: int | None = None) -> Any:
    """Only the parameters of a checkpoint of a finished run, its newest unless `step` names one."""
    directory = Path(directory).absolute()
    if not directory.is_dir():
        raise CheckpointError(f"no checkpoints in {directory}")
    manager = ocp.CheckpointManager(directory)
    there = manager.all_steps()
    if not there or (step is not None and step not in there):
        raise CheckpointError(f"no checkpoint{'s' if step is None else f' of step {step}'} in {directory}")
    step = max(there) if step is None else step
    saved = read_description(manager, step)
    if saved["model"] != model:
        raise CheckpointError(f"the checkpoint in {directory} is of another model: {_mismatch(saved['model'], model)}")
    item = directory / str(step) / "state"
    with ocp.PyTreeCheckpointer() as reader:
        restored = reader.restore(
            item,
            args=ocp.args.PyTreeRestore(
                item={"params": abstract_params},
                restore_args={"params": ocp.checkpoint_utils.construct_restore_args(abstract_params)},
                partial_restore=True,
            ),
        )
    manager.close()
    return restored["params"]


def kept_steps(directory: str | os.PathLike) -> list[int]:
    """The steps of the checkpoints in a directory, in order."""
    manager = ocp.CheckpointManager(Path(directory).absolute())
    steps = sorted(manager.all_steps())
    manager.close()
    return steps


def abstract(tree: Any, shardings: Any) -> Any:
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)


def as_json(value: Any) -> Any:
    """A plain copy that compares equal after a trip through JSON."""
    return json.loads(json.dumps(value, sort_keys=True, default=str))
