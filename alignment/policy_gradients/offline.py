"""Policy gradients on given responses: the likelihood of a response, weighted by how good it was.

All are sums over the tokens of a response (the authors' code notes that the mean was worse), per example; the mean over
examples is the papers' reduction. nll = -log pi(y|x). Weights are held fixed, so each has the gradient of weighted
supervised fine-tuning: -weight on every token's log-prob.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep, masked_sum

Array = jax.Array
_stop = jax.lax.stop_gradient
_LARGEST = 20.0  # nats; far outside every clip of a ratio, far inside float32's exp


def a_lol_advantages(rewards: Array, reference_values: Array) -> Array:
    """A+ = max(0, R - V_ref(x)): what a response is better than the reference would have been; 0 if it is not.

    V_ref is a small value head on the frozen reference's hidden states of the prompt, fitted by mean squared error to
    rewards of the reference's samples. What has A+ = 0 is thrown away; the paper draws the rest with probability
    proportional to A+ as well.

    Args:
      rewards: score of each response. Held fixed.
      reference_values: V_ref(x), the reward the reference is expected to get on the prompt. Held fixed.

    Shapes: both `[...]`, usually `[B]`; result float32 `[...]`, >= 0. No gradient passes.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: Baheti et al., 2023, arXiv 2305.14718.
    """
    rewards, reference_values = checks.floats(rewards=rewards, reference_values=reference_values)
    return _stop(jax.nn.relu(rewards - reference_values))


def _clipped_ratio(log_ratios: Array, eps) -> Array:
    ratios = jnp.exp(jnp.clip(_stop(log_ratios), -_LARGEST, _LARGEST))
    return jnp.clip(ratios, 1 - eps, 1 + eps)


def a_lol(policy_logps: Array, reference_logps: Array, advantages: Array, *, eps: float = 0.9) -> Array:
    """Advantage leftover lunch: max(0, A) * clip(pi(y|x) / ref(y|x), 1 - e, 1 + e) * nll, the weight held fixed.

    The whole response is one action. The clip bounds a weight: unlike PPO's it never takes the gradient away. The ratio
    of a long response is 0 or huge, so with e = 0.9 the weight is nearly always 0.1 or 1.9 away from the reference.

    Args:
      policy_logps: log pi(y|x), summed over completion tokens. Trained.
      reference_logps: the same under the reference. Held fixed.
      advantages: R(x, y) - V_ref(x) of each response; negative ones count as 0. Held fixed.
      eps: half-width of the clip, in [0, 1].

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: static eps out of range.

    Paper: Baheti et al., 2023, arXiv 2305.14718. The authors' code agrees.
    """
    policy, reference, advantages = checks.floats(
        policy_logps=policy_logps, reference_logps=reference_logps, advantages=advantages
    )
    checks.number("eps", eps, 0.0, 1.0, closed="both")
    return -jax.nn.relu(_stop(advantages)) * _clipped_ratio(policy - reference, eps) * policy


def a_lol_sequence(
    policy_token_logps: Array, reference_token_logps: Array, advantages: Array, mask: Array, *, eps: float = 0.9
) -> Array:
    """A-LoL with a weight per token: max(0, A) * sum over t of clip(pi_t / ref_t, 1 - e, 1 + e) * -log pi_t.

    Ratios of single tokens stay near 1, so the clip binds less often than in `a_lol`. The weights are held fixed.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      reference_token_logps: the same under the reference. Held fixed.
      advantages: R(x, y) - V_ref(x) of each response; negative ones count as 0. Held fixed.
      mask: bool, True on completion tokens.
      eps: half-width of the clip, in [0, 1].

    Shapes: log-probs and mask `[..., T]`, advantages `[...]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree, log-probs or advantages not floating, mask not bool.
      ValueError: static eps out of range.

    Paper: Baheti et al., 2023, arXiv 2305.14718 (A-LoL sequence). The authors' code agrees.
    """
    policy, reference = checks.floats(
        policy_token_logps=policy_token_logps, reference_token_logps=reference_token_logps
    )
    (advantages,) = checks.floats(advantages=advantages)
    checks.leading_shape(advantages=advantages, policy_token_logps=policy)
    checks.number("eps", eps, 0.0, 1.0, closed="both")
    policy, reference = keep(policy, mask), keep(reference, mask)
    return -jax.nn.relu(_stop(advantages)) * masked_sum(_clipped_ratio(policy - reference, eps) * policy, mask)


def a_lol_reference_free(policy_logps: Array, advantages: Array) -> Array:
    """A-LoL without the importance weight: max(0, A) * nll. No reference is needed beyond the advantages.

    The same gradient as `a_lol` and `a_lol_sequence` where the policy is the reference.

    Args:
      policy_logps: log pi(y|x), summed over completion tokens. Trained.
      advantages: R(x, y) - V_ref(x) of each response; negative ones count as 0. Held fixed.

    Shapes: both `[...]`, usually `[B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: Baheti et al., 2023, arXiv 2305.14718 (A-LoL ref-free).
    """
    policy, advantages = checks.floats(policy_logps=policy_logps, advantages=advantages)
    return -jax.nn.relu(_stop(advantages)) * policy


def a_lol_kl(policy_logps: Array, reference_logps: Array, advantages: Array, *, beta: float = 0.1) -> Array:
    """A-LoL with a penalty instead of the weight: max(0, A) * nll + beta * (log pi(y|x) - log ref(y|x)).

    The penalty is the log-ratio on given responses: no estimate of a KL, but a constant push of +beta down on every
    token, which A+ has to beat. A response with A <= beta is pushed down.

    Args:
      policy_logps: log pi(y|x), summed over completion tokens. Trained.
      reference_logps: the same under the reference. Held fixed.
      advantages: R(x, y) - V_ref(x) of each response; negative ones count as 0. Held fixed.
      beta: weight of the penalty, in [0, inf). Tuned in the paper, small; the default is not the paper's.

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: static beta out of range.

    Paper: Baheti et al., 2023, arXiv 2305.14718 (A-LoL KL). The authors' code allows it only with the clip off.
    """
    policy, reference, advantages = checks.floats(
        policy_logps=policy_logps, reference_logps=reference_logps, advantages=advantages
    )
    checks.number("beta", beta, 0.0, closed="left")
    return -jax.nn.relu(_stop(advantages)) * policy + beta * (policy - _stop(reference))


def r_lol(policy_logps: Array, reference_logps: Array, rewards: Array, *, eps: float = 0.9) -> Array:
    """Reward leftover lunch: R * clip(pi(y|x) / ref(y|x), 1 - e, 1 + e) * nll, `a_lol` without a baseline.

    Rewards count with their sign: a negative one makes the loss unbounded below. With a constant reward and eps = 0 it
    is supervised fine-tuning.

    Args:
      policy_logps: log pi(y|x), summed over completion tokens. Trained.
      reference_logps: the same under the reference. Held fixed.
      rewards: score of each response. Held fixed.
      eps: half-width of the clip, in [0, 1].

    Shapes: all `[...]`, usually `[B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.
      ValueError: static eps out of range.

    Paper: Baheti et al., 2023, arXiv 2305.14718 (R-LoL).
    """
    policy, reference, rewards = checks.floats(
        policy_logps=policy_logps, reference_logps=reference_logps, rewards=rewards
    )
    checks.number("eps", eps, 0.0, 1.0, closed="both")
    return -_stop(rewards) * _clipped_ratio(policy - reference, eps) * policy


def wbc(policy_logps: Array, rewards: Array) -> Array:
    """Weighted behaviour cloning: R * nll.

    R = 1 is supervised fine-tuning with the sum over tokens. Rewards should not be negative: the loss is then unbounded
    below.

    Args:
      policy_logps: log pi(y|x), summed over completion tokens. Trained.
      rewards: score of each response, >= 0. Held fixed.

    Shapes: both `[...]`, usually `[B]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: a baseline in Baheti et al., 2023, arXiv 2305.14718. The authors' code agrees.
    """
    policy, rewards = checks.floats(policy_logps=policy_logps, rewards=rewards)
    return -_stop(rewards) * policy


def gold(policy_token_logps: Array, rewards: Array, mask: Array, *, floor: float = 0.1) -> Array:
    """Generation by off-policy learning from demonstrations: R * sum over t of max(pi_t, u) * -log pi_t.

    The importance weight of a token, pi_t over the unknown probability of the demonstrator, is approximated by pi_t
    itself, not below the floor u, and held fixed: tokens the model finds unlikely count little. u = 1 is `wbc`; u = 0
    has the gradient of the sum of probabilities.

    Args:
      policy_token_logps: log-prob of each token under the policy. Trained.
      rewards: score of each response, the same for all its tokens. Held fixed.
      mask: bool, True on completion tokens.
      floor: u in [0, 1]; 0.1 to 0.2 in the paper.

    Shapes: log-probs and mask `[..., T]`, rewards `[...]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes do not agree, log-probs or rewards not floating, mask not bool.
      ValueError: static floor out of range.

    Paper: Pang and He, 2020, arXiv 2009.07839, in the form that Baheti et al., 2023, arXiv 2305.14718, compare with
    (`r_gold` of their code): one reward for all tokens, where the original also has returns to go.
    """
    (policy,) = checks.floats(policy_token_logps=policy_token_logps)
    (rewards,) = checks.floats(rewards=rewards)
    checks.leading_shape(rewards=rewards, policy_token_logps=policy)
    checks.number("floor", floor, 0.0, 1.0, closed="both")
    policy = keep(policy, mask)
    # A log-prob is <= 0; the minimum keeps the weight in [u, 1] and finite whatever is passed.
    weights = jnp.maximum(jnp.exp(jnp.minimum(_stop(policy), 0.0)), floor)
    return -_stop(rewards) * masked_sum(weights * policy, mask)
