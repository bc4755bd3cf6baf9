"""Losses that learn how far the preference labels can be trusted.

Latent Collective Preference Optimization (LCPO; later versions of the paper call it RE-PO) treats whether a label is
right as a latent variable. With base losses l(w, l) for the observed order of a pair and l(l, w) for the swapped one:

    p   = s(l(l, w) - l(w, l))                     Gibbs probability that the observed order is the clean one
    w   = p eta_k / (p eta_k + (1 - p)(1 - eta_k)) E-step: posterior that annotator k's label is right
    L   = -w log p - (1 - w) log(1 - p)            M-step, policy
    eta_k <- (1 - alpha) eta_k + alpha mean(w)     M-step, annotator reliability, over the batch's pairs of annotator k

All in logits: p saturates in float32 long before log-ratios of 1e4, its logit never does. Within a step, w comes from
the parameters and the eta of before the step; then the parameters move, then eta. `lcpo` is the method on top of DPO,
`lcpo_ipo`, `lcpo_simpo` and `lcpo_cpo` are the method on top of those; the four functions put it on any base loss that
can be evaluated for both orders.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links, margins
from alignment.losses.stateful import StatefulKernel

Array = jax.Array
_stop = jax.lax.stop_gradient


def lcpo_preference_probability(observed_losses: Array, swapped_losses: Array) -> Array:
    """Probability that the observed order is the clean one: p = s(l(l, w) - l(w, l)).

    With base `dpo` this is s(beta * h); with base `ipo`, s(2 h / tau).

    Args:
      observed_losses: base loss of each pair as labelled.
      swapped_losses: base loss of the same pair with chosen and rejected exchanged.

    Shapes: both `[...]`, usually `[B]`; result float32 `[...]` in [0, 1]. Nothing is held fixed.

    Raises:
      AssertionError: shapes differ or losses are not floating.

    Paper: Cao et al., 2025, arXiv 2509.24159.
    """
    observed_losses, swapped_losses = checks.floats(observed_losses=observed_losses, swapped_losses=swapped_losses)
    return jax.nn.sigmoid(swapped_losses - observed_losses)


def lcpo_posterior(observed_losses: Array, swapped_losses: Array, reliabilities: Array) -> Array:
    """E-step: the posterior that a label is right, logit w = (l(l, w) - l(w, l)) + logit eta.

    Args:
      observed_losses: base loss of each pair as labelled. Held fixed.
      swapped_losses: base loss of the same pair with chosen and rejected exchanged. Held fixed.
      reliabilities: eta of each pair's annotator, in [0, 1]; 1 gives w = 1 and 0 gives w = 0. Held fixed.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]` in [0, 1]. No gradient passes.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: Cao et al., 2025, arXiv 2509.24159.
    """
    # Stopped at the entry, not at the exit: logit(1) is inf, and no derivative should ever be formed there.
    observed_losses, swapped_losses, reliabilities = map(
        _stop,
        checks.floats(observed_losses=observed_losses, swapped_losses=swapped_losses, reliabilities=reliabilities),
    )
    logit_eta = jnp.log(reliabilities) - jnp.log1p(-reliabilities)
    return jax.nn.sigmoid(swapped_losses - observed_losses + logit_eta)


def lcpo_loss(observed_losses: Array, swapped_losses: Array, posteriors: Array) -> Array:
    """M-step of the policy: -w log p - (1 - w) log(1 - p), both orders of the pair weighted by the posterior.

    For a base that is no likelihood (`ipo`) p is a surrogate, and this is not the base loss even with w = 1. A small w
    reverses the direction in which the pair trains.

    Args:
      observed_losses: base loss of each pair as labelled. Trained.
      swapped_losses: base loss of the same pair with chosen and rejected exchanged. Trained.
      posteriors: w, from `lcpo_posterior`, or a constant (1 - e with base `dpo` is `cdpo` with label smoothing e).
        Held fixed.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: Cao et al., 2025, arXiv 2509.24159.
    """
    observed_losses, swapped_losses, posteriors = checks.floats(
        observed_losses=observed_losses, swapped_losses=swapped_losses, posteriors=posteriors
    )
    logits, posteriors = swapped_losses - observed_losses, _stop(posteriors)
    return posteriors * links.logistic(logits) + (1 - posteriors) * links.logistic(-logits)


def lcpo_eta_update(
    eta: Array,
    posteriors: Array,
    annotator_ids: Array,
    *,
    alpha: float = 0.1,
    axis_name: Any = None,
) -> Array:
    """M-step of the reliabilities: eta_k <- (1 - alpha) eta_k + alpha * mean of w over the pairs of annotator k.

    alpha = 1 on the full data set is the exact M-step; smaller values average over mini-batches. Annotators without a
    pair in the batch keep their eta, and ids outside 0 .. A-1 touch none.

    Args:
      eta: reliability of each annotator, in [0, 1].
      posteriors: w of each pair, from `lcpo_posterior`. Held fixed, as is everything here: no gradient passes.
      annotator_ids: integer id of each pair's annotator.
      alpha: step of the moving average, in (0, 1].
      axis_name: mapped axis (or axes) over which the batch is split; the means are then those of the whole batch.

    Shapes: eta `[A]`; posteriors and ids `[B]`; result float32 `[A]`.

    Raises:
      AssertionError: posteriors and ids differ in shape, eta or posteriors not floating, ids not integer.
      ValueError: static alpha out of range.

    Paper: Cao et al., 2025, arXiv 2509.24159.
    """
    (eta,), (posteriors,) = checks.floats(eta=eta), checks.floats(posteriors=posteriors)
    checks.integers(annotator_ids=annotator_ids)
    checks.same_shape(posteriors=posteriors, annotator_ids=annotator_ids)
    checks.number("alpha", alpha, 0.0, 1.0, closed="right")
    eta, posteriors = _stop(eta), _stop(posteriors)
    ids = _known(annotator_ids, eta.shape[-1])
    sums = jnp.zeros_like(eta).at[ids].add(posteriors, mode="drop")
    counts = jnp.zeros_like(eta).at[ids].add(1.0, mode="drop")
    if axis_name is not None:
        sums, counts = jax.lax.psum((sums, counts), axis_name)
    means = sums / jnp.maximum(counts, 1)
    return jnp.where(counts > 0, (1 - alpha) * eta + alpha * means, eta)


def _known(annotator_ids: Array, num_annotators: int) -> Array:
    """Sends negative ids past the end too: jax would count them from the back."""
    return jnp.where(annotator_ids < 0, num_annotators, annotator_ids)


class LcpoState(NamedTuple):
    """eta: float32 [num_annotators], the estimated probability that each annotator's label is right."""

    eta: Array


def _check_reliability(num_annotators, eta_0, alpha) -> None:
    checks.positive_integer("num_annotators", num_annotators)
    checks.number("eta_0", eta_0, 0.0, 1.0)
    checks.number("alpha", alpha, 0.0, 1.0, closed="right")


def _weighted_orders(
    logits: Array, annotator_ids: Array, state: LcpoState, *, num_annotators: int, eta_0: float, alpha: float
) -> tuple[Array, dict[str, Array]]:
    """E-step and loss of the policy, given logit p = l(l, w) - l(w, l) of the base loss."""
    _check_reliability(num_annotators, eta_0, alpha)
    checks.integers(annotator_ids=annotator_ids)
    checks.same_shape(policy_chosen_logps=logits, annotator_ids=annotator_ids)
    (eta,) = checks.floats(eta=state.eta)
    if eta.shape != (num_annotators,):
        raise AssertionError(f"state.eta must have shape ({num_annotators},), got {eta.shape}")
    reliabilities = eta.at[_known(annotator_ids, num_annotators)].get(mode="fill", fill_value=jnp.nan)
    observed = jnp.zeros_like(logits)  # only the difference of the two orders counts
    posteriors = lcpo_posterior(observed, logits, reliabilities.astype(logits.dtype))
    return lcpo_loss(observed, logits, posteriors), {"posteriors": posteriors, "annotator_ids": annotator_ids}


def _method(loss: Callable) -> StatefulKernel:
    """LCPO around a base: `loss` has the base's hyperparameters and num_annotators, eta_0 and alpha; all of them become
    those of `init` and `update` too, with the same defaults."""
    parameters = inspect.signature(loss).parameters.values()
    hyper = [p for p in parameters if p.kind is p.KEYWORD_ONLY]

    def init(**settings) -> LcpoState:
        """Every annotator starts at reliability eta_0, in (0, 1)."""
        bound = init.__signature__.bind(**settings)
        bound.apply_defaults()
        size, eta_0 = bound.arguments["num_annotators"], bound.arguments["eta_0"]
        _check_reliability(size, eta_0, bound.arguments["alpha"])
        return LcpoState(eta=jnp.full((size,), eta_0, jnp.float32))

    def update(state: LcpoState, aux: dict[str, Array], **settings) -> LcpoState:
        """One step of `lcpo_eta_update` with the aux of the whole batch."""
        bound = update.__signature__.bind(state, aux, **settings)
        bound.apply_defaults()
        given = bound.arguments
        _check_reliability(given["num_annotators"], given["eta_0"], given["alpha"])
        eta = lcpo_eta_update(
            state.eta, aux["posteriors"], aux["annotator_ids"], alpha=given["alpha"], axis_name=given["axis_name"]
        )
        return LcpoState(eta=eta.astype(state.eta.dtype))

    positional = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in ("state", "aux")]
    axis_name = inspect.Parameter("axis_name", inspect.Parameter.KEYWORD_ONLY, default=None)
    init.__signature__ = inspect.Signature(hyper)
    update.__signature__ = inspect.Signature([*positional, *hyper, axis_name])
    return StatefulKernel(init=init, loss=loss, update=update)


def _dpo_loss(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    annotator_ids: Array,
    state: LcpoState,
    *,
    beta: float = 0.1,
    num_annotators: int = 1,
    eta_0: float = 0.9,
    alpha: float = 0.1,
) -> tuple[Array, dict[str, Array]]:
    """LCPO on DPO: -w log p - (1 - w) log(1 - p), p = s(beta * h), w its posterior under the annotator's reliability.

    dL/dh = -beta (w - p): at eta = 1/2 a label teaches nothing, at eta = 1 this is `dpo`. An annotator id outside
    0 .. num_annotators - 1 makes that pair's loss NaN: better a skipped, reported step than another's reliability.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      annotator_ids: integer id of each pair's annotator; all 0 when unknown.
      state: from `lcpo.init` or `lcpo.update`. Held fixed.
      beta: of the base loss, in (0, inf).
      num_annotators: size of the state, at least 1.
      eta_0: reliability at the start, in (0, 1); the paper found 0.99 and 0.55 worse than 0.9.
      alpha: step of the moving average of eta, in (0, 1]; the paper found 0.001 and 1 worse than 0.1.

    Shapes: log-probs and ids `[...]`, usually `[B]`; state.eta `[num_annotators]`; values float32 `[...]`, in nats; aux
    holds `posteriors` and `annotator_ids`, `[...]`.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, ids not integer.
      ValueError: a static hyperparameter out of range.

    Paper: Cao et al., 2025, arXiv 2509.24159, mini-batch form. The authors' code was not available.
    """
    checks.number("beta", beta, 0.0)
    h = margins.log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=1.0
    )
    return _weighted_orders(beta * h, annotator_ids, state, num_annotators=num_annotators, eta_0=eta_0, alpha=alpha)


def _ipo_loss(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    reference_chosen_logps: Array,
    reference_rejected_logps: Array,
    annotator_ids: Array,
    state: LcpoState,
    *,
    tau: float = 0.1,
    num_annotators: int = 1,
    eta_0: float = 0.9,
    alpha: float = 0.1,
) -> tuple[Array, dict[str, Array]]:
    """LCPO on IPO: -w log p - (1 - w) log(1 - p), p = s(2 h / tau), w its posterior under the annotator's reliability.

    (h + 1 / (2 tau))^2 - (h - 1 / (2 tau))^2 is 2 h / tau. p is a surrogate, as IPO is no likelihood: what is trained
    is logistic in h, with no finite target, even where every label is trusted.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      reference_chosen_logps, reference_rejected_logps: the same under the reference. Held fixed.
      annotator_ids: integer id of each pair's annotator; all 0 when unknown.
      state: from `lcpo_ipo.init` or `lcpo_ipo.update`. Held fixed.
      tau: of `ipo`, in (0, inf).
      num_annotators, eta_0, alpha: as in `lcpo`.

    Shapes: log-probs and ids `[...]`, usually `[B]`; state.eta `[num_annotators]`; values float32 `[...]`, in nats; aux
    holds `posteriors` and `annotator_ids`, `[...]`.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, ids not integer.
      ValueError: a static hyperparameter out of range.

    Paper: Cao et al., 2025, arXiv 2509.24159, mini-batch form.
    """
    checks.number("tau", tau, 0.0)
    h = margins.log_ratio(
        policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=1.0
    )
    return _weighted_orders(2 * h / tau, annotator_ids, state, num_annotators=num_annotators, eta_0=eta_0, alpha=alpha)


def _simpo_loss(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    chosen_lengths: Array,
    rejected_lengths: Array,
    annotator_ids: Array,
    state: LcpoState,
    *,
    beta: float = 2.0,
    gamma: float = 0.5,
    num_annotators: int = 1,
    eta_0: float = 0.9,
    alpha: float = 0.1,
) -> tuple[Array, dict[str, Array]]:
    """LCPO on SimPO: -w log p - (1 - w) log(1 - p), logit p = log s(D - gamma) - log s(-D - gamma).

    D = beta * (log pi(y_w) / |y_w| - log pi(y_l) / |y_l|) is the length-normalised margin; no reference is needed. Far
    from 0 the logit is D itself.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed (not averaged) log-probs under the policy. Trained.
      chosen_lengths, rejected_lengths: token counts, integer; 0 counts as 1. Held fixed.
      annotator_ids: integer id of each pair's annotator; all 0 when unknown.
      state: from `lcpo_simpo.init` or `lcpo_simpo.update`. Held fixed.
      beta: in (0, inf).
      gamma: target margin, in [0, inf); not multiplied by beta.
      num_annotators, eta_0, alpha: as in `lcpo`.

    Shapes: log-probs, lengths and ids `[...]`, usually `[B]`; state.eta `[num_annotators]`; values float32 `[...]`, in
    nats; aux holds `posteriors` and `annotator_ids`, `[...]`.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, lengths or ids not integer.
      ValueError: a static hyperparameter out of range.

    Paper: Cao et al., 2025, arXiv 2509.24159, mini-batch form; base: Meng et al., 2024, arXiv 2405.14734.
    """
    checks.number("beta", beta, 0.0)
    checks.number("gamma", gamma, 0.0, closed="left")
    chosen, rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps
    )
    checks.same_shape(policy_chosen_logps=chosen, chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    checks.integers(chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    d = beta * (chosen / jnp.maximum(chosen_lengths, 1) - rejected / jnp.maximum(rejected_lengths, 1))
    logits = links.logistic(-d - gamma) - links.logistic(d - gamma)
    return _weighted_orders(logits, annotator_ids, state, num_annotators=num_annotators, eta_0=eta_0, alpha=alpha)


def _cpo_loss(
    policy_chosen_logps: Array,
    policy_rejected_logps: Array,
    annotator_ids: Array,
    state: LcpoState,
    *,
    beta: float = 0.1,
    num_annotators: int = 1,
    eta_0: float = 0.9,
    alpha: float = 0.1,
) -> tuple[Array, dict[str, Array]]:
    """LCPO on CPO: -w log p - (1 - w) log(1 - p), p = s((1 + beta) * (log pi(y_w) - log pi(y_l))).

    The base is -log s(beta * d) - log pi(y_w), d the difference of the log-probs: CPO with its likelihood term at
    weight 1, summed over tokens. Summed log-probs saturate p at once, so that w is soon 0 or 1.

    Args:
      policy_chosen_logps, policy_rejected_logps: summed log-probs under the policy. Trained.
      annotator_ids: integer id of each pair's annotator; all 0 when unknown.
      state: from `lcpo_cpo.init` or `lcpo_cpo.update`. Held fixed.
      beta: in (0, inf).
      num_annotators, eta_0, alpha: as in `lcpo`.

    Shapes: log-probs and ids `[...]`, usually `[B]`; state.eta `[num_annotators]`; values float32 `[...]`, in nats; aux
    holds `posteriors` and `annotator_ids`, `[...]`.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, ids not integer.
      ValueError: a static hyperparameter out of range.

    Paper: Cao et al., 2025, arXiv 2509.24159, mini-batch form; base: Xu et al., 2024, arXiv 2401.08417.
    """
    checks.number("beta", beta, 0.0)
    chosen, rejected = checks.floats(
        policy_chosen_logps=policy_chosen_logps, policy_rejected_logps=policy_rejected_logps
    )
    logits = (1 + beta) * (chosen - rejected)
    return _weighted_orders(logits, annotator_ids, state, num_annotators=num_annotators, eta_0=eta_0, alpha=alpha)


lcpo = _method(_dpo_loss)
"""LCPO with base `dpo`; the docstring of `lcpo.loss` has formula, shapes and hyperparameters."""
lcpo_ipo = _method(_ipo_loss)
"""LCPO with base `ipo`; see `lcpo_ipo.loss`."""
lcpo_simpo = _method(_simpo_loss)
"""LCPO with base SimPO; see `lcpo_simpo.loss`."""
lcpo_cpo = _method(_cpo_loss)
"""LCPO with base CPO; see `lcpo_cpo.loss`."""
