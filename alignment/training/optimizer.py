"""The optimizer of a config: AdamW, GaLore or Fira with warm-up and decay, gradients clipped by their global norm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from alignment import checks
from alignment.models import heads
from alignment.training import averaging, low_rank
from alignment.training.references import apo_momentum

SCHEDULES = ("constant", "cosine", "linear")
NAMES = ("adamw", "galore", "fira")
AVERAGES = ("", "exponential", "mean")


def schedule(config: Mapping[str, Any], steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then constant, cosine or linear decay to `final_fraction` of the peak."""
    peak, warmup, kind = config["learning_rate"], config["warmup_steps"], config["schedule"]
    if kind not in SCHEDULES:
        raise ValueError(f"config.optimizer.schedule: {kind!r} is not one of {', '.join(SCHEDULES)}")
    if not peak > 0 and peak != 0:
        raise ValueError(f"config.optimizer.learning_rate: must be at least 0, got {peak}")
    rest = max(steps - warmup, 1)
    final = peak * config["final_fraction"]
    decay = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, rest, alpha=config["final_fraction"]),
        "linear": optax.linear_schedule(peak, final, rest),
    }[kind]
    if not warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, max(warmup, 1)), decay], [warmup])


def make(config: Mapping[str, Any], steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optax chain and its schedule. Norm scales and biases are not decayed."""
    rate = schedule(config, steps)

    def decayed(params: Any) -> Any:
        def of(path, _leaf):
            return not any(s in str(path[-1]) for s in ("norm", "bias"))

        return jax.tree_util.tree_map_with_path(of, params)

    frozen = [_frozen_but(tuple(config["only"]))] if config["only"] else []
    parts = [*frozen]  # before the norm is taken
    if config["clip_norm"]:
        parts.append(optax.clip_by_global_norm(config["clip_norm"]))
    moments = {key: config[key] for key in ("b1", "b2", "eps")}
    decay = optax.add_decayed_weights(config["weight_decay"], decayed)
    parts.append(optax.chain(_direction(config, moments), decay, optax.scale_by_learning_rate(rate)))
    parts += [_multiplied(dict(config["multipliers"]))] if config.get("multipliers") else []
    chain = optax.chain(*parts, *frozen)  # decay moves what has no gradient
    if config["momentum_every"]:
        chain = with_momentum_of_rounds(chain, config["momentum_every"], config["momentum_alpha"])
    return with_average(config, chain), rate


def _direction(config: Mapping[str, Any], moments: Mapping[str, float]) -> optax.GradientTransformation:
    name = config["name"]
    if name not in NAMES:
        raise ValueError(f"config.optimizer.name: {name!r} is not one of {', '.join(NAMES)}")
    if name == "adamw":
        return optax.scale_by_adam(**moments)

    def of_the_layers(path, leaf) -> bool:  # norms and biases are stacked vectors, the embedding is no projection
        names = [str(getattr(key, "key", key)) for key in path]
        return leaf.ndim >= 3 and "layers" in names and not any(s in names[-1] for s in ("norm", "bias"))

    settings = {"gap": config["projection_gap"], "scale": config["projection_scale"], "matrices": of_the_layers}
    make_one = {"galore": low_rank.scale_by_galore, "fira": low_rank.scale_by_fira}[name]
    try:
        return make_one(config["projection_rank"], **settings, **moments)
    except ValueError as error:
        raise ValueError(f"config.optimizer: {error}") from None


def with_average(config: Mapping[str, Any], optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer, its state holding the average of the parameters too if the config asks for one."""
    kind = config["average"]
    if kind not in AVERAGES:
        raise ValueError(f"config.optimizer.average: {kind!r} is not one of {', '.join(map(repr, AVERAGES))}")
    if not kind:
        return optimizer
    try:
        average = (
            averaging.exponential_average(config["average_decay"])
            if kind == "exponential"
            else averaging.mean_of_iterates(config["average_start"], config["average_interval"])
        )
    except ValueError as error:
        raise ValueError(f"config.optimizer.average: {error}") from None
    return averaging.averaged(optimizer, average)


def finish(config: Mapping[str, Any], params: Any, opt_state: Any) -> Any:
    """The parameters that a run ends with: the average if there is one, else the last."""
    return averaging.average_in(opt_state, params) if config["average"] else params


def with_momentum_of_rounds(
    inner: optax.GradientTransformation, every: int, alpha: float
) -> optax.GradientTransformation:
    """`inner`, and after every `every` updates a further one to `apo_momentum` of its last two solutions.

    A round of `every` steps is one inner solve; its solution, not the extrapolated policy, is what the next round's is
    compared with. A step that is skipped because its loss is not finite is no step of a round.
    """
    checks.number("config.optimizer.momentum_every", every, 1, closed="left")
    checks.number("config.optimizer.momentum_alpha", alpha, 0.0, 1.0, closed="left")

    def init(params):
        return {"inner": inner.init(params), "solution": jax.tree.map(jnp.copy, params), "count": jnp.zeros((), int)}

    def update(updates, state, params=None):
        updates, of_inner = inner.update(updates, state["inner"], params)
        count = state["count"] + 1

        def end_of_round(updates):
            solution = optax.apply_updates(params, updates)
            moved = apo_momentum(solution, state["solution"], alpha=alpha)
            return jax.tree.map(jnp.subtract, moved, params), solution

        updates, solution = jax.lax.cond(
            count % every == 0, end_of_round, lambda updates: (updates, state["solution"]), updates
        )
        return updates, {"inner": of_inner, "solution": solution, "count": count}

    return optax.GradientTransformation(init, update)


def _last(path) -> str:
    return str(getattr(path[-1], "key", path[-1]))


def _check_names(key: str, names: Iterable[str], params: Any) -> None:
    there = {_last(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    if missing := sorted(set(names) - there):
        raise ValueError(
            f"config.optimizer.{key}: no parameter is called {missing[0]!r}; there are: {', '.join(sorted(there))}"
        )


def _multiplied(multipliers: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies the learning rate, the decay's as well, of every parameter whose last name is among them."""
    for name, factor in multipliers.items():
        checks.number(f"config.optimizer.multipliers.{name}", factor, 0.0, closed="left")

    def init(params):
        _check_names("multipliers", multipliers, params)
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        return jax.tree_util.tree_map_with_path(lambda p, u: u * multipliers.get(_last(p), 1.0), updates), state

    return optax.GradientTransformation(init, update)


def _frozen_but(names: tuple[str, ...]) -> optax.GradientTransformation:
    """Sets to 0 the update of every parameter whose last name is not among `names`."""

    def init(params):
        _check_names("only", names, params)
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        return jax.tree_util.tree_map_with_path(lambda p, u: u if _last(p) in names else u * 0, updates), state

    return optax.GradientTransformation(init, update)


def with_value_model(
    policy: optax.GradientTransformation, value: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Each of two networks (`heads.add_value_model`) by an optimizer of its own, clipped by its own norm."""

    def which(params: Any) -> dict[str, str]:
        return {name: "value" if name == heads.VALUE_MODEL else "policy" for name in params}

    return optax.multi_transform({"policy": policy, "value": value}, which)
