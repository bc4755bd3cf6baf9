"""Likelihood training on text of which some parts are unwanted: pretraining with human feedback.

`token_rewards` is R = -s, where s >= 0 is the badness of the sentence or line that the token belongs to. Every loss is
a mean over all tokens, good and bad (`token_mean`). Conditioning on the score and filtering by it are matters of data:
`alignment.data.recipes.feedback_pretraining`.
"""

import math

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient

_NEAREST_TO_ONE = -1e-20  # 1 - p is not told from less than 1e-20, and then not pulled


def _token_inputs(policy_token_logps: Array, token_rewards: Array, mask: Array) -> tuple[Array, Array]:
    logps, rewards = checks.floats(policy_token_logps=policy_token_logps, token_rewards=token_rewards)
    return keep(logps, mask), keep(_stop(rewards), mask)


def _log_of_the_rest(logps: Array) -> Array:
    """log(1 - p) of a log-prob, at the least log 1e-20; without a gradient there."""
    below = logps < _NEAREST_TO_ONE
    safe = jnp.where(below, logps, -1.0)
    # Each form where it loses no digits.
    small = jnp.log1p(-jnp.exp(jnp.minimum(safe, -math.log(2))))
    large = jnp.log(-jnp.expm1(jnp.maximum(safe, -math.log(2))))
    return jnp.where(below, jnp.where(safe < -math.log(2), small, large), math.log(1e-20))


def phf_unlikelihood(
    policy_token_logps: Array, token_rewards: Array, mask: Array, *, alpha: float = 1.0, threshold: float = 7.8e-4
) -> Array:
    """Likelihood of good tokens, unlikelihood of bad ones: -g log p - alpha (1 - g) log(1 - p), g = [s <= threshold].

    Args:
      policy_token_logps: log p of each token. Trained.
      token_rewards: R = -s. Held fixed.
      mask: bool, True where the token counts.
      alpha: weight of the bad tokens, in [0, inf); 1 in the paper for toxicity and personal data, 0.01 for code.
      threshold: badness up to which a token is good, in [0, inf); 7.8e-4 in the paper for toxicity, else 0.

    Shapes: arrays `[..., T]`, usually `[B, T]`; result float32 `[..., T]`, in nats.

    Raises:
      AssertionError: shapes differ, an array not floating, or mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Korbak et al., 2023, arXiv 2302.08582. The authors' class takes a threshold of exactly 0, which two of their
      tasks set, for none: see `phf_soft_unlikelihood`. Here 0 is 0.
    """
    logps, rewards = _token_inputs(policy_token_logps, token_rewards, mask)
    checks.number("alpha", alpha, 0.0, closed="left")
    checks.number("threshold", threshold, 0.0, closed="left")
    return keep(jnp.where(-rewards <= threshold, -logps, -alpha * _log_of_the_rest(logps)), mask)


def phf_soft_unlikelihood(policy_token_logps: Array, token_rewards: Array, mask: Array, *, alpha: float = 1.0) -> Array:
    """Likelihood and unlikelihood in the proportion of the score: -(1 - s) log p - alpha s log(1 - p).

    For scores that are probabilities; one outside [0, 1] is cut there.

    Args:
      policy_token_logps, token_rewards, mask, alpha: as in `phf_unlikelihood`.

    Shapes: arrays `[..., T]`, usually `[B, T]`; result float32 `[..., T]`, in nats.

    Raises:
      AssertionError: shapes differ, an array not floating, or mask not bool.
      ValueError: static alpha out of range.

    Paper: Korbak et al., 2023, arXiv 2302.08582. Not in the paper, but what the authors' code does where no threshold,
      or one of 0, is given.
    """
    logps, rewards = _token_inputs(policy_token_logps, token_rewards, mask)
    checks.number("alpha", alpha, 0.0, closed="left")
    badness = jnp.clip(-rewards, 0.0, 1.0)
    return keep(-(1 - badness) * logps - alpha * badness * _log_of_the_rest(logps), mask)


def _weights(advantages: Array, beta: float, highest_weight: float) -> Array:
    checks.number("beta", beta, 0.0)
    checks.number("highest_weight", highest_weight, 0.0)
    # Cut before the exponential, which can overflow.
    return jnp.exp(jnp.minimum(advantages / beta, jnp.log(highest_weight)))


def phf_rwr(
    policy_token_logps: Array,
    token_rewards: Array,
    mask: Array,
    *,
    beta: float = 10.0,
    highest_weight: float = 1000.0,
) -> Array:
    """Reward-weighted regression on tokens: -min(exp(R / beta), highest_weight) * log p.

    The weights are not normalised. With scores near 1e-3 and the paper's beta of 10 this is nearly plain likelihood.

    Args:
      policy_token_logps: log p of each token. Trained.
      token_rewards: R = -s. Held fixed.
      mask: bool, True where the token counts.
      beta: in (0, inf); towards infinity `sft`, towards 0 the good tokens alone.
      highest_weight: in (0, inf).

    Shapes: arrays `[..., T]`, usually `[B, T]`; result float32 `[..., T]`, in nats.

    Raises:
      AssertionError: shapes differ, an array not floating, or mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Korbak et al., 2023, arXiv 2302.08582. Their runs reuse the class of `phf_awr` with an untrained value head
      whose value is -1/2 everywhere, a constant factor of exp(0.5 / beta); the formula is followed.
    """
    logps, rewards = _token_inputs(policy_token_logps, token_rewards, mask)
    return keep(-_weights(rewards, beta, highest_weight) * logps, mask)


def phf_awr(
    policy_token_logps: Array,
    token_values: Array,
    token_rewards: Array,
    mask: Array,
    *,
    alpha: float = 0.5,
    beta: float = 10.0,
    highest_weight: float = 1000.0,
) -> Array:
    """Advantage-weighted regression on tokens, with a value head.

        alpha * min(exp((R - sg(v)) / beta), highest_weight) * (-log p) + (1 - alpha) * (R - v)^2

    Args:
      policy_token_logps: log p of each token. Trained.
      token_values: v, what the value head expects before the token is known. Trained by the second term alone.
      token_rewards: R = -s. Held fixed.
      mask: bool, True where the token counts.
      alpha: share of the likelihood term, in [0, 1]; 0.5 in the paper, for code 0.05.
      beta: in (0, inf); 10 for toxicity, 0.1 for personal data, 1 for code.
      highest_weight: in (0, inf).

    Shapes: arrays `[..., T]`, usually `[B, T]`; result float32 `[..., T]`.

    Raises:
      AssertionError: shapes differ, an array not floating, or mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Korbak et al., 2023, arXiv 2302.08582. In their code the head's value is -s(w h), in (-1, 0), with w = 0 at
      first; the head here is linear, and any squashing the caller's.
    """
    logps, rewards = _token_inputs(policy_token_logps, token_rewards, mask)
    checks.number("alpha", alpha, 0.0, 1.0, closed="both")
    (values,) = checks.floats(token_values=token_values)
    values = keep(values, mask)
    checks.same_shape(token_values=values, token_rewards=rewards)
    weights = _weights(rewards - _stop(values), beta, highest_weight)
    return keep(-alpha * weights * logps + (1 - alpha) * jnp.square(rewards - values), mask)
