"""Losses that match the policy's distribution over K responses of a prompt to that of their rewards.

With rewards r_i (in `labels`), the optimum of the reward under a penalty on the divergence from the reference has
log-ratios log pi(y_i|x) - log ref(y_i|x) = r_i / beta up to a constant. Restricted to a list, that is a match of two
softmaxes: one of scaled log-ratios, one of rewards over a temperature. A list whose responses are fewer than K has
all-False rows in `responses_mask`; whatever stands in their log-probs and rewards is not looked at. s is the sigmoid.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses import links
from alignment.losses.masking import keep, log_softmax

Array = jax.Array
_stop = jax.lax.stop_gradient


def _matched(
    policy_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    beta: float,
    temperature: float,
) -> tuple[Array, Array, Array]:
    """Entry checks of arrays, then beta * log-ratios, log softmax(rewards / temperature), which responses there are."""
    policy_responses_logps, reference_responses_logps, labels = checks.floats(
        policy_responses_logps=policy_responses_logps,
        reference_responses_logps=reference_responses_logps,
        labels=labels,
    )
    checks.boolean(responses_mask=responses_mask)
    checks.leading_shape(policy_responses_logps=policy_responses_logps, responses_mask=responses_mask)
    valid = jnp.any(responses_mask, axis=-1)
    log_ratios = keep(policy_responses_logps, valid) - _stop(keep(reference_responses_logps, valid))
    return beta * log_ratios, log_softmax(_stop(labels) / temperature, valid), valid


def _sum(values: Array, valid: Array) -> Array:
    return jnp.sum(jnp.where(valid, values, 0.0), axis=-1)


def exo(
    policy_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    beta_pi: float = 0.5,
    beta_r: float = 0.5,
) -> Array:
    """Efficient Exact Optimization: KL(q || p) = sum over the list of q_i * (log q_i - log p_i).

        q = softmax over i of beta_pi * (log pi(y_i|x) - log ref(y_i|x)),  p = softmax over i of r_i / beta_r

    The policy stands first in the KL, as in reinforcement learning, so it may leave out good responses but avoids bad
    ones; `infonca` is the other direction. The gradient passes through q wherever it stands. The response distribution
    is that of the list: draw the responses from the reference or the supervised model.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens. Trained.
      reference_responses_logps: the same under the reference. Held fixed.
      labels: rewards r_i, or beta_r times a log-preference. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.
      beta_pi: scale of the policy's log-ratios, in (0, inf); 0.5 on HH and TL;DR, 0.1 on IMDb.
      beta_r: temperature of the rewards, in (0, inf); the paper's equals beta_pi.

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in nats, >= 0 up to rounding.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Ji et al., 2024, arXiv 2402.00856. The authors' code has this for rewards; only its branch for pairs departs
    from the paper (log p fixed at (0, -10)).
    """
    checks.number("beta_pi", beta_pi, 0.0)
    checks.number("beta_r", beta_r, 0.0)
    scores, log_p, valid = _matched(
        policy_responses_logps, reference_responses_logps, labels, responses_mask, beta_pi, beta_r
    )
    log_q = log_softmax(scores, valid)
    return _sum(jnp.exp(log_q) * (log_q - log_p), valid)


def infonca(
    policy_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    beta: float = 0.01,
    alpha: float = 1.0,
) -> Array:
    """InfoNCA: -sum over the list of p_i * log softmax(m)_i, m_i = beta * (log pi(y_i|x) - log ref(y_i|x)).

        p = softmax over i of r_i / alpha

    The forward KL from the rewards' distribution to the policy's, plus the entropy of p. Only differences of log-ratios
    matter, so all of them may fall together; `nca` forbids that. With two responses and a p of one and zero it is
    `dpo`.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens. Trained.
      reference_responses_logps: the same under the reference. Held fixed.
      labels: rewards r_i. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.
      beta: in (0, inf).
      alpha: temperature of the rewards, in (0, inf); tune it to their scale.

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Chen et al., 2024, arXiv 2402.05369. alpha is the authors' `temperature_alpha`, by which their code divides
    (and whose comment calls it the inverse of the paper's). That code also adds 0.01 to the reward of the first
    response, to break ties; that is not done here.
    """
    checks.number("beta", beta, 0.0)
    checks.number("alpha", alpha, 0.0)
    scores, log_p, valid = _matched(
        policy_responses_logps, reference_responses_logps, labels, responses_mask, beta, alpha
    )
    return -_sum(jnp.exp(log_p) * log_softmax(scores, valid), valid)


def nca(
    policy_responses_logps: Array,
    reference_responses_logps: Array,
    labels: Array,
    responses_mask: Array,
    *,
    beta: float = 0.01,
    alpha: float = 1.0,
) -> Array:
    """Noise Contrastive Alignment: -sum over the list of p_i * log s(m_i) + (1 / K) * log s(-m_i).

        m_i = beta * (log pi(y_i|x) - log ref(y_i|x)),  p = softmax over i of r_i / alpha

    Each response is told from noise by itself, so the optimum m_i = log(K * p_i) fixes each log-ratio and not only
    their differences: a constant added to all of them changes the loss, on purpose, and the likelihood of the best
    responses cannot fall with the others'. K is the number of responses that the list has.

    Args:
      policy_responses_logps: log pi(y_i | x), summed over completion tokens. Trained.
      reference_responses_logps: the same under the reference. Held fixed.
      labels: rewards r_i. Held fixed.
      responses_mask: bool, True on the tokens of each response; a response without a token is not there.
      beta: in (0, inf).
      alpha: temperature of the rewards, in (0, inf); tune it to their scale.

    Shapes: log-probs and labels `[..., K]`, mask `[..., K, T]`; result float32 `[...]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs or labels not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Chen et al., 2024, arXiv 2402.05369; the remarks at `infonca` on alpha and on the authors' code hold here
    too.
    """
    checks.number("beta", beta, 0.0)
    checks.number("alpha", alpha, 0.0)
    scores, log_p, valid = _matched(
        policy_responses_logps, reference_responses_logps, labels, responses_mask, beta, alpha
    )
    size = jnp.maximum(jnp.sum(valid, axis=-1, keepdims=True), 1)
    return _sum(jnp.exp(log_p) * links.logistic(scores) + links.logistic(-scores) / size, valid)
