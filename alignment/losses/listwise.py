"""Losses on ranked lists: K responses to one prompt, each with a graded label."""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient


def _ranks(scores: Array, valid: Array) -> Array:
    """1 for the largest score of each list, 2 for the next ...; equal scores keep the order of the list.

    Responses that are not valid rank after all that are. By comparison of all pairs: K is small, and the K x K table is
    needed anyway.
    """
    scores = jnp.where(valid, scores, -jnp.inf)
    mine, other = scores[..., :, None], scores[..., None, :]
    size = scores.shape[-1]
    earlier = jnp.arange(size)[None, :] < jnp.arange(size)[:, None]
    return 1 + jnp.sum((other > mine) | ((other == mine) & earlier), axis=-1)


def _differences(values: Array) -> Array:
    """x_i - x_j for all i, j: `[..., K]` to `[..., K, K]`."""
    return values[..., :, None] - values[..., None, :]


def lipo_lambda(
    policy_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    beta: float = 0.05,
) -> Array:
    """LiPO-lambda: pairwise logistic losses, each weighted by the change in DCG that swapping the pair would make.

        s_i      = beta * (log pi(y_i | x) - log ref(y_i | x))
        rank(i)  = place of y_i when the list is sorted by s, best = 1; ties keep the order of the list
        Delta_ij = |2^psi_i - 2^psi_j| * |1 / log(1 + rank(i)) - 1 / log(1 + rank(j))|
        loss     = sum over pairs with psi_i > psi_j of Delta_ij * log(1 + exp(-(s_i - s_j)))

    Natural logarithm in the discount (base 2 only rescales the loss by ln 2). The ranks come from the model's current
    scores, not from the labels. Pairs with equal labels contribute nothing. A list whose responses are fewer than K has
    all-False rows in `responses_mask`; whatever stands in their log-probs and labels is not looked at. Ties: at the
    start of training policy == reference, all scores are equal, and the order of the list decides the ranks.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens. Trained.
      reference_responses_logps: the same under the reference. Held fixed.
      labels: psi, graded relevance, normally win rates in [0, 1]; exponential in the gain, so keep them small. Held
        fixed.
      responses_mask: bool, True on the tokens of each response.
      beta: in (0, inf); the paper tunes it near 0.05.

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`. Ranks and Delta are held fixed
    too (the DCG is piecewise constant in the scores).

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: static beta out of range.

    Paper: Liu et al., 2024, arXiv 2402.01878. No official code. One public write-up prints the sum with a leading
    minus, which would have no lower bound.
    """
    policy_responses_logps, reference_responses_logps, labels = checks.floats(
        policy_responses_logps=policy_responses_logps,
        reference_responses_logps=reference_responses_logps,
        labels=labels,
    )
    checks.boolean(responses_mask=responses_mask)
    checks.leading_shape(policy_responses_logps=policy_responses_logps, responses_mask=responses_mask)
    checks.number("beta", beta, 0.0)
    valid = jnp.any(responses_mask, axis=-1)
    scores = beta * (keep(policy_responses_logps, valid) - _stop(keep(reference_responses_logps, valid)))
    labels = _stop(keep(labels, valid))

    gains = jnp.exp2(labels)
    discounts = 1 / jnp.log(1.0 + _ranks(_stop(scores), valid))
    delta = jnp.abs(_differences(gains) * _differences(discounts))
    ordered = (_differences(labels) > 0) & valid[..., :, None] & valid[..., None, :]
    losses = links.logistic(_differences(scores))
    return jnp.sum(jnp.where(ordered, delta * losses, 0.0), axis=(-2, -1))
