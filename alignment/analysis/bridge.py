"""Supervised fine-tuning as learning an implicit reward: the matching game, and logits read as action values.

The relation that SFT, DPO and RLHF share is r(x, y) = beta * log(pi(y|x) / ref(y|x)) + beta * log Z(x). Here r is taken
without log Z(x): for the linear conjugate it drops out, for the others leaving it out is a choice.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array


class LogitDecomposition(NamedTuple):
    """Per token: Q of the token taken, V of the state before it, the advantage Q - V, and the reward that Q implies."""

    q_values: Array
    values: Array
    advantages: Array
    rewards: Array


def linear_conjugate(rewards: Array) -> Array:
    """f*(t) = t, of a matching divergence like total variation: makes `bridge_objective` SFT. Shapes: any, kept."""
    return rewards


def pearson_conjugate(rewards: Array) -> Array:
    """f*(t) = t + t^2 / 4, of the Pearson chi-square divergence. Shapes: any, kept."""
    return rewards + jnp.square(rewards) / 4


def squared_hellinger_conjugate(rewards: Array) -> Array:
    """f*(t) = t / (1 - t) below t = 1 and infinite from there on, of the squared Hellinger distance. Shapes: kept."""
    inside = rewards < 1
    return jnp.where(inside, rewards / (1 - jnp.where(inside, rewards, 0.0)), jnp.inf)


def bridge_objective(
    policy_logps: Array,
    reference_logps: Array,
    expert_probabilities: Array,
    *,
    beta: float = 0.1,
    conjugate: Callable[[Array], Array] = linear_conjugate,
) -> Array:
    """J(pi) = E_expert[r] - E_pi[f*(r)] + beta * KL(pi || ref) with r = beta * log(pi / ref); to be maximised.

    With f*(t) = t the last two terms cancel and J = beta * E_expert[log(pi / ref)]: maximising it is SFT, and the
    gradient does not know the reference. The other conjugates keep a resistance to leaving it. J(ref) = 0 for all
    three. The expectation under pi is summed exactly, so the gradient has its score-function part.

    Args:
      policy_logps, reference_logps: log-probs of every response.
      expert_probabilities: how often the demonstrations hold each; only this one may be zero.
      beta: in (0, inf); only a scale for the linear conjugate.
      conjugate: f*, the convex conjugate of the matching divergence's generator, elementwise.

    Shapes: all `[..., V]`; result float32 `[...]`; -inf where the conjugate is infinite.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: static beta out of range.

    Paper: Wang et al., 2025, Implicit Reward as the Bridge: A Unified View of SFT and DPO Connections, arXiv
    2507.00018. Derived from the paper's argument, not transcribed: its closed-form losses were not recovered.
    """
    policy, reference, expert = checks.floats(
        policy_logps=policy_logps, reference_logps=reference_logps, expert_probabilities=expert_probabilities
    )
    checks.number("beta", beta, 0.0)
    rewards = beta * (policy - reference)
    probabilities = jnp.exp(policy)
    return jnp.sum(expert * rewards + probabilities * (rewards - conjugate(rewards)), axis=-1)


def logit_q_decomposition(
    logits: Array, reference_token_logps: Array, tokens: Array, mask: Array, *, beta: float = 0.1
) -> LogitDecomposition:
    """Reads logits as soft action values of the token-by-token decision process: beta * log pi = Q - V.

    Q = beta * logits and V(s) = beta * logsumexp(logits). With the reward r_t = Q_t - beta * log ref_t - V(s_{t+1}),
    V = 0 after the last token, the sum of beta * log(pi / ref) over a completion is its return minus V(s_0): what SFT
    fits to demonstrations is an implicit reward too, and the one that DPO then starts from.

    Args:
      logits: of the next token at each position.
      reference_token_logps: log ref of the token taken.
      tokens: the token taken, integer; anything behind the mask.
      mask: bool, True on the tokens of the completion, one unbroken run.
      beta: in (0, inf).

    Shapes: logits `[..., T, V]`, the others `[..., T]`; every field float32 `[..., T]`, 0 behind the mask, in units of
    reward.

    Raises:
      AssertionError: shapes do not agree or dtypes are wrong.
      ValueError: static beta out of range.

    Paper: Wang et al., 2025, arXiv 2507.00018.
    """
    (logits,) = checks.floats(logits=logits)
    (reference,) = checks.floats(reference_token_logps=reference_token_logps)
    checks.integers(tokens=tokens)
    checks.boolean(mask=mask)
    checks.same_shape(reference_token_logps=reference, tokens=tokens, mask=mask)
    checks.leading_shape(mask=mask, logits=logits)
    checks.number("beta", beta, 0.0)
    logits = jnp.where(mask[..., None], logits, 0.0)
    taken = jnp.take_along_axis(logits, jnp.where(mask, tokens, 0)[..., None], axis=-1)[..., 0]
    q_values = keep(beta * taken, mask)
    values = keep(beta * jax.nn.logsumexp(logits, axis=-1), mask)
    after = jnp.concatenate([values[..., 1:], jnp.zeros_like(values[..., :1])], axis=-1)
    rewards = q_values - beta * keep(reference, mask) - jnp.where(mask, after, 0.0)
    return LogitDecomposition(q_values, values, q_values - values, rewards)
