"""The loop of scripts whose models are toys: one device, a state of plain arrays, an `advance` and an `evaluate`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from alignment.training import checkpoints, preemption
from alignment.training import logging as metrics_log
from experiments import command
from experiments.from_config import say


def train(
    name: str,
    config: ConfigDict,
    workdir: Path,
    state: Any,
    advance: Callable[[Any, int], tuple[Any, Mapping[str, float]]],
    evaluate: Callable[[Any], dict[str, float]],
) -> Any:
    """`config.training.steps` times `advance(state, number of the step)`; gives the last state.

    What is random in a step has to follow from config.seed and its number: then a run that was stopped or killed goes
    on exactly where its last checkpoint stands. Logs must have a `loss`; one that is not finite stops the run.
    """
    training, directory = config.training, workdir / "checkpoints"
    command.check_writable(workdir)
    manager = checkpoints.open_manager(directory)
    description = {"model": {}, "objective": checkpoints.as_json(config.to_dict())}
    first = manager.latest_step() or 0
    if first:
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        state = checkpoints.restore(manager, first, abstract, None, description)
        say(f"{name}: going on from step {first} in {directory}")
    log = metrics_log.MetricsLog(workdir, first)
    progress = metrics_log.Progress(name, training.steps, first, training.log_every)
    with preemption.StopOnSignal() as stop:
        try:
            if not first:
                log.write(0, evaluate(state), "eval")
            for at in range(first + 1, training.steps + 1):
                state, logs = advance(state, at)
                logs = {k: float(v) for k, v in logs.items()}
                if not math.isfinite(logs["loss"]):
                    raise command.RunStopped(f"{name} step {at}: the loss is {logs['loss']}")
                last = at == training.steps
                if at % training.log_every == 0 or last:
                    log.write(at, logs)
                progress.advance(at, 1, logs if at % training.log_every == 0 or last else None)
                if at % training.eval_every == 0 or last:
                    log.write(at, evaluate(state), "eval")
                stopping = stop.requested()
                if at % training.checkpoint_every == 0 or last or stopping:
                    checkpoints.save(manager, at, state, None, description)
                if stopping:
                    checkpoints.wait(manager)
                    say(f"{name}: stopped by SIGTERM at step {at}; run the same command again to go on")
                    raise SystemExit(0)
            checkpoints.wait(manager)
        finally:
            progress.close()
            log.close()
            manager.close()
    metrics_log.draw_curves(metrics_log.read_metrics(workdir / "metrics.jsonl"), workdir / "curves.png", name)
    return state
