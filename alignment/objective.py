"""From a config's terms to sums and weights: binds kernels to the data and evaluates them; the step divides.

An objective is `{kernel_name: {"weight": 1.0, "side": "chosen", "reduction": "token_mean", **hyperparameters}}`, the
name looked up in `alignment.losses`; metrics are the same without weights, looked up in `alignment.metrics`. `weight`,
`side` and `reduction` (and `reduction_length` for the reduction `constant`) are the only keys that are not
hyperparameters, but for `kernel`: an entry may carry a name of its own and say there which kernel it is, so that one
kernel serves twice; and for `mask`: a column of `statistics.TOKEN_MASKS` that stands for the kernel's argument `mask`,
so that it acts on those tokens alone; and for `active`: from which share of the training to which a term of the
objective counts, (0.0, 0.5) for the first half. The loss is the sum of the terms that are active.

In place of a kernel an entry may name its parts: a `margin` of `alignment.losses.margins`, a `link` of
`alignment.losses.links` and, if wanted, a `weighting` of `alignment.losses.weights`. Any margin goes with any link, and
the hyperparameters of all parts stand beside them:

    config.objective.hinge_norm = {"margin": "length_normalized_log_ratio", "link": "hinge", "beta": 2.0}
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment import statistics
from alignment.losses import composition, reductions
from alignment.losses.stateful import StatefulKernel

PARTS = {
    "margin": "alignment.losses.margins",
    "link": "alignment.losses.links",
    "weighting": "alignment.losses.weights",
}
BOOLEAN = ("mask", "desirable", "valid", "correct", "rated", "ties", "satisfied", "judgements")
BOOLEAN += ("chosen_harmful", "rejected_harmful", "opponents", *statistics.TOKEN_MASKS)
MASKS = (*statistics.TOKEN_MASKS, "rated")  # alone, each says which entries a term is of
SIZES = {"heads": 1, "ratings": 1, "objectives": 2}  # of a run whose model or data say nothing of them
RESERVED = ("kernel", *PARTS, "mask", "weight", "side", "reduction", "reduction_length", "active")


class Term(NamedTuple):
    """A kernel bound to the data: what it reads, how it is reduced, what it weighs."""

    name: str
    kernel: Callable[..., Any]  # the pure function of arrays; for a stateful method its `loss`
    arguments: tuple[str, ...]  # names of the vocabulary, one per array argument
    hyperparameters: Mapping[str, Any]
    weight: float
    reduction: reductions.Reduction
    mask: str  # the mask that per-token values are reduced under; "" for per-example values
    method: StatefulKernel | None
    batch_wide: bool  # an example's value depends on the whole batch, so micro-batches would change it
    active: tuple[int, int] | None = None  # the first step (from 0) at which it counts and the first after; None: all


def public_names(namespace: ModuleType | SimpleNamespace) -> list[str]:
    own = [n for n, x in vars(namespace).items() if getattr(x, "__module__", None) == namespace.__name__]
    return sorted(n for n in getattr(namespace, "__all__", own) if n[0] != "_")


def _lookup(name: str, namespace, where: str, what: str = "kernel") -> Callable[..., Any] | StatefulKernel:
    public = public_names(namespace)
    if name not in public:
        nearest = difflib.get_close_matches(name, public, n=3, cutoff=0.5) or public
        raise ValueError(f"{where}: no such {what} in {namespace.__name__}; nearest: {', '.join(nearest)}")
    return getattr(namespace, name)


def _composed(settings: Mapping[str, Any], where: str) -> Callable[..., Any]:
    """The kernel of an entry that names its parts."""
    if "kernel" in settings:
        raise ValueError(f"{where}.kernel: name either a kernel or its parts, margin and link")
    if missing := [role for role in ("margin", "link") if role not in settings]:
        raise ValueError(f"{where}.{missing[0]}: missing; a kernel named by its parts has a margin and a link")
    parts = {
        role: _lookup(settings[role], importlib.import_module(path), f"{where}.{role} = {settings[role]!r}", role)
        for role, path in PARTS.items()
        if role in settings
    }
    try:
        return composition.compose(**parts)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _is_method(x: Any) -> bool:
    return isinstance(x, StatefulKernel)


def _dummy(name: str, sizes: Mapping[str, int]) -> jax.ShapeDtypeStruct:
    """A small stand-in of the shape and type that the vocabulary gives an argument."""
    batch, responses, time, draws, width = 2, 3, 4, 5, 8
    parsed = statistics.parse(name)
    integer = (
        parsed.statistic == "lengths"
        or name in ("answers", "strata", "roll_in_lengths", "iterations", "random_bits")
        or parsed.statistic in ("tokens", "sampled_tokens")
        or name.endswith("ids")
    )
    boolean = parsed.statistic in BOOLEAN
    dtype = jnp.bool_ if boolean else jnp.int32 if integer else jnp.float32
    shape: tuple[int, ...] = (batch,)
    if parsed.side in statistics.LISTS or name in statistics.PER_LIST:
        shape += (responses,)
    if name in statistics.PER_OBJECTIVE:
        shape += (sizes["objectives"] - name.endswith("margin_rewards"),)
    if parsed.statistic == "elbo_terms":
        shape += (1,)
    if parsed.statistic in ("mask", *statistics.TOKEN_COLUMNS) or parsed.statistic.startswith(
        ("token", "sampled_token")
    ):
        shape += (time,)
    if name in ("ratings", "rated"):
        shape += (sizes["ratings"],)
    if parsed.statistic in ("head_rewards", "token_head_scores", "prompt_head_rewards"):
        shape += (sizes["heads"],)
    if parsed.statistic in statistics.FEATURES:
        shape += (width,)
    if parsed.statistic == "head_weights":
        shape = (sizes["heads"], width)
    if parsed.statistic.startswith("sampled_token"):
        shape += (draws,)
    return jax.ShapeDtypeStruct(shape, dtype)


def _bind_kernel(
    name: str, settings: Mapping[str, Any], namespace, kind: str, sides, columns, sizes: Mapping[str, int] = SIZES
) -> tuple[Term, Any]:
    """A term without its reduction, and the shapes of what its kernel gives."""
    where = f"config.{kind}.{name}"
    if any(role in settings for role in PARTS):
        found = _composed(settings, where)
    else:
        known_as = settings.get("kernel", name)
        found = _lookup(known_as, namespace, f"config.{kind}.{known_as}")
    method = found if _is_method(found) else None
    kernel = method.loss if method else found
    side = settings.get("side", "")
    if side and side not in sides:
        raise ValueError(f"{where}.side: {side!r} is not among the data's sides {sides}")
    allowed = set(statistics.hyperparameters_of(kernel))
    if method:
        allowed |= set(statistics.hyperparameters_of(method.init)) | set(statistics.hyperparameters_of(method.update))
    allowed -= {"axis_name"}  # under jit the batch is global; a config has no mapped axis to name
    given = {k: v for k, v in settings.items() if k not in RESERVED}
    if unknown := sorted(set(given) - allowed):
        options = ", ".join(sorted(allowed | set(RESERVED)))
        raise ValueError(f"{where}.{unknown[0]}: unknown key; allowed: {options}")
    parameters = statistics.arguments_of(kernel)
    for parameter in parameters:
        try:
            statistics.parse(parameter)
        except ValueError as error:
            raise ValueError(f"kernel {name!r}: {error}") from None
    arguments = tuple(statistics.on_side(p, side) for p in parameters)
    if tokens := settings.get("mask", ""):
        if tokens not in statistics.TOKEN_MASKS:
            raise ValueError(f"{where}.mask: {tokens!r} is not one of {', '.join(statistics.TOKEN_MASKS)}")
        if "mask" not in arguments:
            raise ValueError(f"{where}.mask: the kernel takes no mask; it takes {', '.join(arguments)}")
        arguments = tuple(tokens if a == "mask" else a for a in arguments)
    for argument in arguments:
        statistics.check_available(argument, sides, columns, name)
    try:
        settled = statistics.hyperparameters_of(kernel) | given
        arguments = tuple(statistics.with_number(a, settled) for a in arguments)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None

    stand_ins = [_dummy(a, sizes) for a in arguments if a != "state"]
    weight, batch_wide = float(settings.get("weight", 1.0)), "axis_name" in inspect.signature(kernel).parameters
    term = Term(name, kernel, arguments, given, weight, reductions.example_mean, "", method, batch_wide)
    defaults = statistics.hyperparameters_of(kernel)
    missing = [k for k, v in defaults.items() if v is inspect.Parameter.empty and k not in given]
    if missing:
        raise ValueError(f"{where}.{missing[0]}: required hyperparameter is not set")
    try:  # shapes and ranges are checked by the kernel itself, on shapes only
        state = initial_state(term)
        values = jax.eval_shape(lambda *a: _call(term, a, state)[0], *stand_ins)
    except (ValueError, AssertionError) as error:  # of the shapes only heads and ratings can fail to fit
        raise ValueError(f"{where}: {error}") from error
    return term, values


def _bind_one(name: str, settings: Mapping[str, Any], namespace, kind: str, sides, columns, sizes) -> Term:
    where, side = f"config.{kind}.{name}", settings.get("side", "")
    term, values = _bind_kernel(name, settings, namespace, kind, sides, columns, sizes)
    arguments = term.arguments
    if values.ndim == 1:
        if "reduction" in settings and settings["reduction"] not in ("", "example_mean"):
            raise ValueError(f"{where}.reduction: {name} gives one value per example; only 'example_mean' applies")
        return term
    reduction = _reduction(where, settings)
    masks = [a for a in arguments if statistics.parse(a).statistic == "mask"]
    masks += [a for a in arguments if a in MASKS]
    if masks:
        return term._replace(reduction=reduction, mask=masks[0])
    read = [side] if side else sorted({statistics.parse(a).side for a in arguments} - {""}) or [""]
    if len(read) > 1:
        raise ValueError(f"{where}: gives a value per token of {' and '.join(read)}: ask for the mask meant")
    return term._replace(reduction=reduction, mask=statistics.on_side("mask", read[0]))


def _reduction(where: str, settings: Mapping[str, Any]) -> reductions.Reduction:
    name = settings.get("reduction") or "token_mean"
    if name == "constant":
        if "reduction_length" not in settings:
            raise ValueError(f"{where}.reduction_length: the reduction 'constant' needs the length it divides by")
        return reductions.constant(settings["reduction_length"])
    choices = {
        "token_mean": reductions.token_mean,
        "sequence_mean": reductions.sequence_mean,
        "sequence_sum": reductions.sequence_sum,
    }
    if name not in choices:
        raise ValueError(f"{where}.reduction: {name!r} is not one of {', '.join([*choices, 'constant'])}")
    return choices[name]


def bind(
    spec: Mapping[str, Mapping[str, Any]],
    namespace: ModuleType,
    kind: str,
    sides: tuple[str, ...],
    columns: Iterable[str],
    sizes: Mapping[str, int] = SIZES,
    steps: int | None = None,
) -> tuple[Term, ...]:
    """Binds each entry of a config section; before any compilation, a ValueError names the key that does not fit.

    `sizes` are the numbers of reward heads of the model, of ratings in the data and of rewards per completion. `steps`
    are those of the whole training, for terms that are `active` in a part of it; None refuses such terms.
    """
    columns = tuple(columns)
    terms = tuple(
        _bind_one(name, settings or {}, namespace, kind, sides, columns, sizes)._replace(
            active=_active(f"config.{kind}.{name}.active", settings or {}, steps)
        )
        for name, settings in spec.items()
    )
    starts = [0, *(term.active[1] for term in terms if term.active)]
    for start in sorted(starts):  # what is active changes at an end, or it has been from the beginning
        if terms and start != steps and not any(_covers(term, start) for term in terms):
            raise ValueError(f"config.{kind}: no term is active at step {start} of {steps}, from 0; change an `active`")
    return terms


def _active(where: str, settings: Mapping[str, Any], steps: int | None) -> tuple[int, int] | None:
    """The steps [first, last) of an entry's `active`; None for all of them."""
    if "active" not in settings:
        return None
    if steps is None:
        raise ValueError(f"{where}: only terms of the objective of experiments.finetune can be active for a while")
    given = settings["active"]
    shares = tuple(given) if isinstance(given, list | tuple) else ()
    numbers = len(shares) == 2 and all(isinstance(x, int | float) and not isinstance(x, bool) for x in shares)
    if not (numbers and 0 <= shares[0] < shares[1] <= 1):
        raise ValueError(f"{where}: must be two shares of the training, 0 <= from < to <= 1, got {given!r}")
    first, last = (round(share * steps) for share in shares)
    if first == last:
        raise ValueError(f"{where}: {given!r} is no whole step of the {steps} of this run")
    return None if (first, last) == (0, steps) else (first, last)


def _covers(term: Term, step: Any) -> Any:
    """Whether the term counts at this step, an integer or a traced one."""
    return True if term.active is None else (term.active[0] <= step) & (step < term.active[1])


class Estimator(NamedTuple):
    """A function of a finished rollout bound to its columns: it shapes rewards or estimates advantages."""

    term: Term
    gives: tuple[str, ...]  # the columns it adds to the batch


def bind_estimators(
    spec: Mapping[str, Mapping[str, Any]],
    namespace: ModuleType,
    kind: str,
    gives: tuple[str, str],
    columns,
    sizes: Mapping[str, int] = SIZES,
) -> tuple[Estimator, ...]:
    """Binds each entry of a section; `gives` names the column for an array per completion and for one per token.

    An entry's own key `gives` names another, and a kernel that gives a dictionary names its columns itself. Each may
    read what those before it gave; they run by their key `order` (0 unless given), then by name, for a config does not
    keep the order in which it was written. One that gives `valid` is a filter: above 0 stays.
    """
    bound, columns = [], list(columns)
    for name, settings in sorted(spec.items(), key=lambda item: ((item[1] or {}).get("order", 0), item[0])):
        settings = settings or {}
        for key in ("weight", "reduction", "reduction_length", "side", "active"):
            if key in settings:
                raise ValueError(f"config.{kind}.{name}.{key}: belongs to terms of an objective")
        plain = {k: v for k, v in settings.items() if k not in ("gives", "order")}
        term, values = _bind_kernel(name, plain, namespace, kind, statistics.EACH, columns, sizes)
        given = tuple(values) if isinstance(values, dict) else (settings.get("gives", gives[values.ndim - 1]),)
        for column in given:
            if statistics.parse(column).whose not in ("label", "batch"):
                raise ValueError(f"config.{kind}.{name}.gives: {column!r} is not a column that a kernel may ask for")
        columns += given
        bound.append(Estimator(term, given))
    return tuple(bound)


def with_num_prompts(
    spec: Mapping[str, Mapping[str, Any]], namespace: ModuleType, kind: str, num_prompts: int
) -> dict[str, dict[str, Any]]:
    """The entries of a section, `num_prompts` filled in where a kernel remembers prompts and the entry does not say.

    ValueError for an entry that says less: prompts without a place in the memory would have no estimate.
    """
    filled = {name: dict(settings or {}) for name, settings in spec.items()}
    for name, settings in filled.items():
        known_as = settings.get("kernel", name)
        kernel = _lookup(known_as, namespace, f"config.{kind}.{known_as}")
        kernel = kernel.loss if _is_method(kernel) else kernel
        if "num_prompts" not in statistics.hyperparameters_of(kernel):
            continue
        if settings.setdefault("num_prompts", num_prompts) < num_prompts:
            raise ValueError(
                f"config.{kind}.{name}.num_prompts: {settings['num_prompts']} places for prompts numbered up to "
                f"{num_prompts - 1}"
            )
    return filled


def columns_of(estimators: Iterable[Estimator]) -> list[str]:
    """The columns that an array-giving estimator adds; those that give a dictionary name their columns there."""
    return [column for estimator in estimators for column in estimator.gives]


def union(*namespaces: ModuleType) -> SimpleNamespace:
    """Several packages of kernels as one namespace to look names up in."""
    names = [name for space in namespaces for name in public_names(space)]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ValueError(f"{' and '.join(s.__name__ for s in namespaces)} both have a kernel {twice[0]!r}")
    found = {name: getattr(space, name) for space in namespaces for name in public_names(space)}
    return SimpleNamespace(__name__=" or ".join(s.__name__ for s in namespaces), __all__=names, **found)


def estimate(
    estimators: Iterable[Estimator], states: Mapping[str, Any], computed: Mapping, batch: Mapping
) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    """The batch with the columns that the estimators give, and the new states of those that have a memory."""
    batch, states = dict(batch), dict(states)
    shape = batch["mask"].shape
    for term, gives in estimators:
        arrays = [statistics.deliver(a, statistics.EACH, computed, batch) for a in term.arguments if a != "state"]
        values, aux = _call(term, arrays, states.get(term.name))
        for column, value in (values if isinstance(values, dict) else {gives[0]: values}).items():
            value = value.reshape(*shape[:2], *value.shape[1:])
            # A filter can only take away: what padded a batch stays padding.
            batch[column] = batch["valid"] & (value > 0) if column == "valid" else value
        if term.method:
            update = term.method.update
            states[term.name] = update(states[term.name], aux, **_only(update, term.hyperparameters))
    return batch, states


def check_accumulation(terms: Iterable[Term], accumulate: int) -> None:
    """ValueError if micro-batches would change what a term is: its value depends on all examples of the batch."""
    for term in terms:
        if term.batch_wide and accumulate > 1:
            raise ValueError(
                f"config.training.accumulate: {accumulate} micro-batches would change {term.name!r}, whose loss "
                "compares the examples of the whole batch; set it to 1"
            )


def _any_rollouts(estimators: Iterable[Estimator], seed: int) -> dict[str, jax.Array]:
    """Columns that estimators read, drawn at random: eight groups of one completion each."""
    rng = np.random.default_rng(seed)
    batch = {"mask": jnp.ones((8, 1, 4), bool), "valid": jnp.ones((8, 1), bool)}
    for name in names_of([e.term for e in estimators]):
        parsed = statistics.parse(name)
        statistic = "token_logps" if parsed.statistic == "logps" else parsed.statistic
        column = f"{parsed.whose}_{statistic}" if parsed.whose in statistics.WHOSE else statistic
        if name == "state" or column in batch:
            continue
        dummy = _dummy(name, SIZES)
        shape = (8, 1, 4) if parsed.statistic == "logps" or dummy.shape[-1] == 4 else (8, 1)
        if column.endswith("ids"):  # a memory has a place for prompt 0 at least
            drawn = np.arange(8)[:, None] * (column == "group_ids")
        elif jnp.issubdtype(dummy.dtype, jnp.floating):
            drawn = rng.normal(size=shape)
        else:
            drawn = rng.integers(0, 2, shape)
        batch[column] = jnp.asarray(drawn, dummy.dtype)
    return batch


def check_groups(estimators: Iterable[Estimator], terms: Iterable[Term], group_size: int) -> None:
    """ValueError for methods that compare the completions of a prompt, where each prompt has only one.

    Whether the estimators give such a completion an advantage is found out by asking them: `rloo_advantages` does.
    """
    if group_size > 1:
        return
    for term in terms:
        if any(a == "group_ids" or statistics.parse(a).side == "responses" for a in term.arguments):
            raise ValueError(
                f"config.rollout.group_size: 1, but {term.name!r} of config.objective compares the completions of a "
                "prompt; set it to at least 2"
            )
    comparing = [e.term.name for e in estimators if "group_ids" in e.term.arguments]
    if not comparing:
        return
    for seed in range(3):
        states = initial_states([e.term for e in estimators])
        batch = _any_rollouts(estimators, seed)
        given, _ = estimate(estimators, states, batch, batch)
        if any(jnp.any(values != 0) for name, values in given.items() if name.endswith("advantages")):
            return
    raise ValueError(
        "config.rollout.group_size: 1, at which every advantage is 0, for the completions of a prompt are compared "
        f"({', '.join(comparing)}); set it to at least 2"
    )


def names_of(terms: Iterable[Term]) -> list[str]:
    return [argument for term in terms for argument in term.arguments]


def draws(terms: Iterable[Term]) -> bool:
    """Whether a term needs random numbers."""
    parsed = map(statistics.parse, names_of(terms))
    return any(p.statistic in ("random_bits", "second_features") for p in parsed)


def _only(function: Callable, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    accepted = statistics.hyperparameters_of(function)
    return {k: v for k, v in hyperparameters.items() if k in accepted}


def initial_state(term: Term) -> Any:
    """The memory of a stateful method before its first step; None for a plain kernel."""
    return term.method.init(**_only(term.method.init, term.hyperparameters)) if term.method else None


def initial_states(terms: Iterable[Term]) -> dict[str, Any]:
    return {term.name: initial_state(term) for term in terms if term.method}


def _call(term: Term, arrays: Iterable[jax.Array], state: Any) -> tuple[jax.Array, Any]:
    given = iter(arrays)
    positional = [state if a == "state" else next(given) for a in term.arguments]
    out = term.kernel(*positional, **_only(term.kernel, term.hyperparameters))
    return out if term.method else (out, ())


def evaluate(
    terms: Iterable[Term], states: Mapping[str, Any], sides: tuple[str, ...], computed: Mapping, batch: Mapping
) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    """Sum of each term over a (micro-)batch, and what stateful methods keep of each example for their update."""
    sums, kept = {}, {}
    deliver = functools.partial(statistics.deliver, sides=sides, computed=computed, batch=batch)
    for term in terms:
        arrays = [deliver(a) for a in term.arguments if a != "state"]
        values, aux = _call(term, arrays, states.get(term.name))
        sums[term.name] = term.reduction.total(values, _mask(term, sides, batch))
        if term.method:
            kept[term.name] = aux
    return sums, kept


def _mask(term: Term, sides: tuple[str, ...], batch: Mapping) -> jax.Array:
    valid = batch["valid"]
    if sides == statistics.EACH:  # [rows, group]
        of_groups = any(statistics.parse(a).side in statistics.LISTS for a in term.arguments)
        valid = valid.all(axis=-1) if of_groups else valid.reshape(-1)
    if not term.mask:
        return valid
    mask = statistics.deliver(term.mask, sides, {}, batch)
    return mask & valid.reshape(-1, *(1,) * (mask.ndim - 1))


def weights(terms: Iterable[Term], sides: tuple[str, ...], batch: Mapping) -> dict[str, jax.Array]:
    """What each term's sum is divided by. It depends on masks alone, so the whole batch's is known before the first
    micro-batch runs, and micro-batches then add up to exactly the gradient of the whole."""
    return {term.name: term.reduction.weight(_mask(term, sides, batch)) for term in terms}


def total(terms: Iterable[Term], parts: Mapping[str, Any], step: Any) -> Any:
    """The loss at a step, counted from 0: the weighted sum of the terms that are active. `step` may be traced."""
    loss: Any = 0
    for term in terms:
        part, counts = term.weight * parts[term.name], _covers(term, step)
        if isinstance(counts, bool):  # known: plain numbers stay what they are
            loss += part if counts else 0
        else:
            loss += jnp.where(counts, part, 0.0)
    return loss


def update_states(
    terms: Iterable[Term], states: Mapping[str, Any], kept: Mapping[str, Any], step: Any
) -> dict[str, Any]:
    """All states after a step, those of active stateful terms renewed from what `evaluate` kept of all micro-batches.

    `step` is the number of the step that was taken, from 0.
    """
    new = dict(states)
    for term in terms:
        if term.method:
            update = term.method.update
            moved = update(states[term.name], kept[term.name], **_only(update, term.hyperparameters))
            if term.active is not None:
                counts = _covers(term, step)
                moved = jax.tree.map(lambda n, o, c=counts: jnp.where(c, n, o), moved, states[term.name])
            new[term.name] = moved
    return new
