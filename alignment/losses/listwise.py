"""Losses on ranked lists: K responses to one prompt, each with a graded label.

LiPO takes losses of learning to rank to the scores s_i = beta * (log pi(y_i|x) - log ref(y_i|x)) and the labels psi_i
of a list: pointwise, pairwise (over all i, j with psi_i > psi_j; equal labels make no pair) and listwise ones, summed
within the list. A list whose responses are fewer than K has all-False rows in `responses_mask`; whatever stands in
their log-probs and labels is not looked at. Log-probs are sums over the tokens of a response, in nats.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links
from alignment.losses.masking import keep, log_softmax

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


def _scored(
    policy_responses_logps: Array, reference_responses_logps: Array, labels: Array, responses_mask: Array, beta: float
) -> tuple[Array, Array, Array]:
    """Entry checks, then the scores, the labels (both 0 where there is no response) and which responses there are."""
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
    return scores, _stop(keep(labels, valid)), valid


def _sum_over_pairs(pair_losses: Array, labels: Array, valid: Array) -> Array:
    """Sum of the `[..., K, K]` losses of i over j with psi_i > psi_j, both of them there."""
    ordered = (_differences(labels) > 0) & valid[..., :, None] & valid[..., None, :]
    return jnp.sum(jnp.where(ordered, pair_losses, 0.0), axis=(-2, -1))


def lipo_pointwise_mse(
    policy_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    beta: float = 0.05,
) -> Array:
    """Pointwise squared error: sum over the list of (psi_i - s_i)^2.

    Each score is regressed on its label: the one LiPO loss, with `lipo_pointwise_sigmoid`, that a constant added to all
    scores of a list changes.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens. Trained.
      reference_responses_logps: the same under the reference. Held fixed.
      labels: psi, targets of the scores, normally win rates in [0, 1]. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.
      beta: in (0, inf); the paper tunes it near 0.05.

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: static beta out of range.

    Paper: Liu et al., 2024, arXiv 2402.01878. No official code.
    """
    scores, labels, valid = _scored(policy_responses_logps, reference_responses_logps, labels, responses_mask, beta)
    return jnp.sum(jnp.where(valid, jnp.square(labels - scores), 0.0), axis=-1)


def lipo_pointwise_sigmoid(
    policy_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    beta: float = 0.05,
) -> Array:
    """Pointwise cross-entropy: -sum over the list of psi_i * log s(s_i) + (1 - psi_i) * log s(-s_i), s(.) the sigmoid.

    Each score is the logit of a win rate; best at s_i = log(psi_i / (1 - psi_i)). A constant added to all scores of a
    list changes it.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens. Trained.
      reference_responses_logps: the same under the reference. Held fixed.
      labels: psi, probabilities that a response is good, in [0, 1]. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.
      beta: in (0, inf); the paper tunes it near 0.05.

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: static beta out of range.

    Paper: Liu et al., 2024, arXiv 2402.01878. No official code.
    """
    scores, labels, valid = _scored(policy_responses_logps, reference_responses_logps, labels, responses_mask, beta)
    losses = labels * links.logistic(scores) + (1 - labels) * links.logistic(-scores)
    return jnp.sum(jnp.where(valid, losses, 0.0), axis=-1)


def lipo_pairwise_hinge(
    policy_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    beta: float = 0.05,
) -> Array:
    """Pairwise hinge: sum over pairs with psi_i > psi_j of max(0, 1 - (s_i - s_j)).

    With two responses this is the reference-corrected hinge that SLiC-norm and RSO train. The gradient at the kink is
    0.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens. Trained.
      reference_responses_logps: the same under the reference. Held fixed.
      labels: psi, of which only the order matters. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.
      beta: in (0, inf); the paper tunes it near 0.05.

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: static beta out of range.

    Paper: Liu et al., 2024, arXiv 2402.01878. No official code.
    """
    scores, labels, valid = _scored(policy_responses_logps, reference_responses_logps, labels, responses_mask, beta)
    return _sum_over_pairs(jax.nn.relu(1 - _differences(scores)), labels, valid)


def lipo_pairwise_logistic(
    policy_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    beta: float = 0.05,
) -> Array:
    """Pairwise logistic (RankNet): sum over pairs with psi_i > psi_j of log(1 + exp(-(s_i - s_j))).

    `dpo` on every ordered pair of the list under a Bradley-Terry model; `lipo_lambda` weighs the pairs.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens. Trained.
      reference_responses_logps: the same under the reference. Held fixed.
      labels: psi, of which only the order matters. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.
      beta: in (0, inf); the paper tunes it near 0.05.

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: static beta out of range.

    Paper: Liu et al., 2024, arXiv 2402.01878. No official code.
    """
    scores, labels, valid = _scored(policy_responses_logps, reference_responses_logps, labels, responses_mask, beta)
    return _sum_over_pairs(links.logistic(_differences(scores)), labels, valid)


def cpl_list(
    policy_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    alpha: float = 0.1,
    contrastive_bias: float = 0.5,
) -> Array:
    """CPL on a ranked list: mean over pairs with psi_i > psi_j of softplus(lambda A_j - A_i), A = alpha log pi(y|x).

    `cpl` without discount, averaged over all ordered pairs of the list; a list without a pair costs 0.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens. Trained.
      labels: psi, the scores, of which only the order matters. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.
      alpha: temperature, in (0, inf).
      contrastive_bias: lambda, in (0, 1].

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Hejna et al., 2023, arXiv 2310.13639. Their code averages over the pairs of a whole batch of scored segments;
    here the segments that compare are those of one prompt.
    """
    checks.number("contrastive_bias", contrastive_bias, 0.0, 1.0, closed="right")
    checks.number("alpha", alpha, 0.0)
    advantages, labels, valid = _scored(
        policy_responses_logps, jnp.zeros_like(policy_responses_logps), labels, responses_mask, beta=alpha
    )
    pairs = jax.nn.softplus(contrastive_bias * advantages[..., None, :] - advantages[..., :, None])
    return _sum_over_pairs(pairs, labels, valid) / jnp.maximum(_sum_over_pairs(jnp.ones_like(pairs), labels, valid), 1)


def lipo_list_mle(
    policy_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    beta: float = 0.05,
) -> Array:
    """ListMLE: -log of the Plackett-Luce probability of the labelled order, o(1) best.

        sum over k of log(sum over j >= k of exp(s_o(j))) - s_o(k)

    The order is taken apart from the top: which response is best of all, which is best of the rest ... Equal labels
    keep the order of the list, so with ties the value depends on that order.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens. Trained.
      reference_responses_logps: the same under the reference. Held fixed.
      labels: psi, of which only the order matters. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.
      beta: in (0, inf); the paper tunes it near 0.05.

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: static beta out of range.

    Paper: Liu et al., 2024, arXiv 2402.01878. No official code. It is the Plackett-Luce form of DPO of Rafailov et al.,
    2023, arXiv 2305.18290.
    """
    scores, labels, valid = _scored(policy_responses_logps, reference_responses_logps, labels, responses_mask, beta)
    places = _ranks(labels, valid)
    after = (places[..., None, :] > places[..., :, None]) & valid[..., None, :]
    # Each sees itself, there or not: the log-sum-exp of nothing would be -inf, and its gradient NaN.
    seen = after | jnp.eye(scores.shape[-1], dtype=bool)
    of_the_rest = jax.nn.logsumexp(jnp.where(seen, scores[..., None, :], -jnp.inf), axis=-1)
    return jnp.sum(jnp.where(valid, of_the_rest - scores, 0.0), axis=-1)


def lipo_softmax(
    policy_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    beta: float = 0.05,
) -> Array:
    """Softmax cross-entropy: -sum over the list of (psi_i / sum_j psi_j) * log(exp(s_i) / sum_j exp(s_j)).

    The labels are taken as shares, not as logits: doubling all of them changes nothing. A list whose labels are all 0
    says nothing and costs nothing; one with a label below 0 is no distribution, and its loss is NaN: better a skipped,
    reported step than a share below 0.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens. Trained.
      reference_responses_logps: the same under the reference. Held fixed.
      labels: psi, in [0, inf), normally win rates in [0, 1]. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.
      beta: in (0, inf); the paper tunes it near 0.05.

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: static beta out of range.

    Paper: Liu et al., 2024, arXiv 2402.01878. No official code.
    """
    scores, labels, valid = _scored(policy_responses_logps, reference_responses_logps, labels, responses_mask, beta)
    total = jnp.sum(labels, axis=-1, keepdims=True)
    shares = jnp.where(total > 0, labels / jnp.where(total > 0, total, 1.0), 0.0)
    losses = -jnp.sum(jnp.where(valid, shares * log_softmax(scores, valid), 0.0), axis=-1)
    return jnp.where(jnp.any(labels < 0, axis=-1), jnp.nan, losses)


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
    scores, labels, valid = _scored(policy_responses_logps, reference_responses_logps, labels, responses_mask, beta)
    discounts = 1 / jnp.log(1.0 + _ranks(_stop(scores), valid))
    delta = jnp.abs(_differences(jnp.exp2(labels)) * _differences(discounts))
    return _sum_over_pairs(delta * links.logistic(_differences(scores)), labels, valid)


def rrhf_list(policy_responses_logps: Array, labels: Array, responses_mask: Array, *, lambda_: float = 1.0) -> Array:
    """RRHF on a ranked list: hinges on mean log-probs over all ordered pairs, and the likelihood of the best response.

        p_i  = log pi(y_i | x) / |y_i|
        loss = sum over pairs with psi_i > psi_j of max(0, p_j - p_i)  -  lambda * log pi(y_best | x)

    No reference, no margin: a pair trains until its means are in order (the gradient at equality is 0). Best is the
    largest label, the first of the list among equals. `rrhf` is the loss on a pair.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens (not averaged). Trained.
      labels: psi, of which only the order matters. Held fixed.
      responses_mask: bool, True on the tokens of each response, whose number is its length; a response without a token
        is not there.
      lambda_: weight of the likelihood, in [0, inf).

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: static lambda_ out of range.

    Paper: Yuan et al., 2023, arXiv 2304.05302. The authors' code sums the hinges over the whole batch and averages the
    likelihood over positions, padding among them; as printed in the paper, both are sums over one list here.
    """
    checks.number("lambda_", lambda_, 0.0, closed="left")
    logps, labels, valid = _scored(
        policy_responses_logps, jnp.zeros_like(policy_responses_logps), labels, responses_mask, 1.0
    )
    means = logps / jnp.maximum(jnp.sum(responses_mask, axis=-1), 1)
    best = valid & (_ranks(labels, valid) == 1)
    hinges = _sum_over_pairs(jax.nn.relu(-_differences(means)), labels, valid)
    return hinges - lambda_ * jnp.sum(jnp.where(best, logps, 0.0), axis=-1)


def _first_tokens(policy_responses_token_logps: Array, labels: Array, responses_mask: Array):
    """Entry checks, then token log-probs (0 behind the mask), labels and which responses there are."""
    (logps,), (labels,) = checks.floats(logps=policy_responses_token_logps), checks.floats(labels=labels)
    logps = keep(logps, responses_mask)
    checks.leading_shape(labels=labels, policy_responses_token_logps=logps)
    valid = jnp.any(responses_mask, axis=-1)
    return logps, _stop(keep(labels, valid)), valid


def first_ranknet(policy_responses_token_logps: Array, labels: Array, responses_mask: Array) -> Array:
    """FIRST: RankNet on the first token alone, mean over pairs with r_i < r_j of log(1 + e^(s_j - s_i)) / (r_i + r_j).

    s_i is the log-prob of the first token of response i, the identifier of a candidate that the prompt lists, and r_i
    its rank by label, 1 for the best; pairs of equal labels do not train. One decoding step then ranks all candidates:
    only differences count, in which log-probs and logits agree. Identifiers are to be single tokens, all different.

    Args:
      policy_responses_token_logps: log-prob of each token of each response; only the first are read. Trained.
      labels: relevance, of which only the order matters. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.

    Shapes: log-probs and mask `[..., K, T]`, labels `[..., K]`; result float32 `[...]`, 0 for a list without a pair.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.

    Paper: Chen et al., 2024, arXiv 2411.05508; the loss from Reddy et al., 2024, arXiv 2406.15657, printed as a sum
    over pairs. The authors' code takes the mean, with a weight of 10 beside the language-modelling loss (`first_lm`),
    and is followed; it loses pairs whose predicted scores tie, which is not.
    """
    logps, labels, valid = _first_tokens(policy_responses_token_logps, labels, responses_mask)
    scores = logps[..., 0]
    higher = (_differences(labels) < 0) & valid[..., None, :]
    ranks = 1 + jnp.sum(higher, axis=-1)  # candidates with one label share the best of their ranks
    weights = 1 / (ranks[..., :, None] + ranks[..., None, :])
    ordered = (_differences(labels) > 0) & valid[..., :, None] & valid[..., None, :]
    total = _sum_over_pairs(weights * links.logistic(_differences(scores)), labels, valid)
    return total / jnp.maximum(jnp.sum(ordered, axis=(-2, -1)), 1)


def first_lm(policy_responses_token_logps: Array, labels: Array, responses_mask: Array) -> Array:
    """The language-modelling loss beside `first_ranknet`: mean over tokens of -log pi of the best response.

    The best response is the one that goes on to spell the whole order ("B > A > C"), of which the identifier of the
    best candidate is the first token.

    Args:
      policy_responses_token_logps: log-prob of each token of each response. Trained.
      labels: relevance; the largest is the best, the first of the list among equals. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.

    Shapes: log-probs and mask `[..., K, T]`, labels `[..., K]`; result float32 `[...]`, in nats per token.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.

    Paper: Chen et al., 2024, arXiv 2411.05508.
    """
    logps, labels, valid = _first_tokens(policy_responses_token_logps, labels, responses_mask)
    best = (valid & (_ranks(labels, valid) == 1))[..., None]
    tokens = jnp.sum(responses_mask & best, axis=(-2, -1))
    return -jnp.sum(jnp.where(best, logps, 0.0), axis=(-2, -1)) / jnp.maximum(tokens, 1)
