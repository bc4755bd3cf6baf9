"""What `config.diagnostics` switches on in a run on pairs; `alignment.training.side_gradients` does the other half."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from alignment import losses, metrics, objective, statistics
from alignment.data import pipeline
from alignment.training import figures, mesh, side_gradients
from experiments.from_config import Data

PAIR = tuple(f"{whose}_{side}_logps" for whose in ("policy", "reference") for side in ("chosen", "rejected"))


def names_of(settings: ConfigDict) -> list[str]:
    """The statistics that the diagnostics need beyond those of the objective: difficulty is measured by a reference."""
    return list(PAIR) if settings.difficulty else []


def check(config: ConfigDict, terms: tuple[objective.Term, ...], data: Data) -> None:
    """ValueError, before any compilation, if the data or the objective cannot serve what is switched on."""
    if config.training.gradient == "pairwise_normalized":
        side_gradients.check_terms(terms, "config.training.gradient")
    for key in ("gradient_entanglement", "difficulty"):
        if config.diagnostics[key] and data.sides != side_gradients.SIDES:
            raise ValueError(f"config.diagnostics.{key}: is of pairs, but config.data.kind is {config.data.kind!r}")
        if config.diagnostics[key] and not data.evaluation:
            raise ValueError(f"config.diagnostics.{key}: looks at the evaluation set; set config.data.eval_source")
    if config.diagnostics.gradient_entanglement:
        side_gradients.check_terms(terms, "config.diagnostics.gradient_entanglement")
    if config.diagnostics.difficulty:
        beta_of(terms)


def entanglement(
    config: ConfigDict,
    of_trained,
    frozen_models,
    terms,
    data: Data,
    device_mesh,
    by_process: Mapping[str, int],
    **scoring,
) -> tuple[Callable, Iterable]:
    """An evaluation of the pairs' gradients, and the batches of the first pairs of the evaluation set to give it.

    `of_trained(make)` is `make(model)`, taken of what is trained: all parameters, or adapters.
    """
    evaluation = of_trained(
        lambda model: side_gradients.make_evaluation(model, frozen_models, terms, data.sides, **scoring)
    )
    few = data.evaluation[: config.diagnostics.gradient_entanglement]
    batches = pipeline.evaluation_batches(few, batch_size=config.data.batch_size, collate=data.collate, **by_process)
    return jax.jit(evaluation, out_shardings=mesh.replicated(device_mesh)), batches


def beta_of(terms: Iterable[objective.Term]) -> float:
    """The beta of the run: that of the first term that has one."""
    for term in terms:
        beta = {**statistics.hyperparameters_of(term.kernel), **term.hyperparameters}.get("beta")
        if isinstance(beta, float | int):
            return float(beta)
    raise ValueError("config.diagnostics.difficulty: no term of the objective has a beta to measure the difficulty by")


def write_difficulty(
    workdir: Path, model, frozen_models, params, frozen_params, terms, sides, batches, device_mesh, **scoring
) -> str:
    """Writes difficulty.jsonl and difficulty.png on all pairs of `batches`; returns the path of the figure.

    A line holds: `id`, `reference_log_ratio` c = log ref(y_l|x) - log ref(y_w|x), `loss` (of DPO at the run's beta,
    whatever the objective is), `flip_loss` (the loss at which the pair flips) and `ranked_right`.
    """
    beta = beta_of(terms)
    needs = statistics.needs_of(PAIR)

    def score(params, frozen_params, batch):
        frozen = {whose: (frozen_models[whose], frozen_params[whose]) for whose in frozen_params}
        computed = statistics.compute(needs, model, params, frozen, batch, **scoring)
        chosen, rejected, *reference = (statistics.deliver(name, sides, computed, batch) for name in PAIR)
        return {
            "id": batch["ids"],
            "valid": batch["valid"],
            "reference_log_ratio": reference[1] - reference[0],
            "loss": losses.dpo(chosen, rejected, *reference, beta=beta),
            "flip_loss": metrics.dpo_flip_loss(*reference, beta=beta),
            "ranked_right": chosen >= rejected,
        }

    score = jax.jit(score, out_shardings=mesh.replicated(device_mesh))
    lines = []
    for batch in batches:
        scored = score(params, frozen_params, mesh.put_batch(device_mesh, batch))
        columns = {k: np.asarray(v) for k, v in scored.items()}
        valid = columns.pop("valid")
        lines += [{k: v[i].item() for k, v in columns.items()} for i in np.flatnonzero(valid)]
    if jax.process_index() == 0:
        (workdir / "difficulty.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        figures.draw_difficulty(lines, workdir / "difficulty.png", beta=beta)
    return str(workdir / "difficulty.png")
