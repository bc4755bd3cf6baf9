"""The unified policy gradient estimator (UPGE): four slots, and the methods of post-training as ways to fill them.

    gradient = 1_stable * (1 / pi_ref) * A * grad pi(y_t | .)  =  c_t grad log pi,   c_t = 1_stable * (pi / pi_ref) * A

1. a stabilisation mask, 1 or 0 per token:       `upge_*_stabilisation`
2. a reference denominator, as log pi_ref:       `upge_*_denominator`
3. an advantage:                                 any estimator, or `upge_advantages`
4. the gradient of the likelihood:               `upge_surrogate`, which takes what the other three return

Every function of slots 1 and 2 is per token and held fixed, so that any mask goes with any denominator:

    method                 denominator          stabilisation   c_t
    SFT, REINFORCE         policy               none            A
    DFT, offline           unit                 none            A pi
    PPO, GRPO, DAPO        behaviour            ppo             A r
    CISPO                  clipped_weight       none            A clip(r)
    GSPO                   sequence             sequence        A s
    GMPO                   geometric            log             A rho
    LUFFY, demonstrations  shaped               none            A gamma pi / (pi + gamma)^2
    GOLD                   floored              none            A max(pi, u)
    A-LoL                  clipped_sequence     none            A clip(pi(y) / ref(y))

with r = pi / pi_old of a token, s the geometric mean of r over the completion, rho that of clipped r. A method whose
weight is clipped, not masked, has its clip in the denominator: its tokens never lose their gradient.

All of them: Lv et al., 2025, arXiv 2509.04419. The paper's table gives CISPO the mask of PPO and pi_old; the form here
is the one of CISPO's own gradient.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient
_LARGEST_LOG_RATIO = 20.0


def _fixed(mask: Array, **arrays: Array) -> list[Array]:
    """Entry checks; float32, held fixed, 0 behind the mask."""
    return [_stop(keep(values, mask)) for values in checks.floats(**arrays)]


def _cut(log_ratios: Array) -> Array:
    return jnp.clip(log_ratios, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)


def _mean(values: Array, mask: Array) -> Array:
    """Mean over the tokens of a row, with an axis of one left in place."""
    return jnp.sum(keep(values, mask), axis=-1, keepdims=True) / jnp.maximum(jnp.sum(mask, -1, keepdims=True), 1)


def _check_clip(eps_low: float, eps_high: float) -> None:
    checks.number("eps_low", eps_low, 0.0, 1.0, closed="both")
    checks.number("eps_high", eps_high, 0.0, closed="left")


# --- slot 2: log pi_ref ----------------------------------------------------------------------------------------------


def upge_policy_denominator(policy_token_logps: Array, mask: Array) -> Array:
    """log pi_ref = log pi: SFT and REINFORCE, c = A.

    Args:
      policy_token_logps: log-prob of each token under the policy. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.

    Shapes: both `[..., T]`, usually `[N, T]`; result float32 `[..., T]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, log-probs not floating, mask not bool.

    Paper: Lv et al., 2025, arXiv 2509.04419.
    """
    return _fixed(mask, policy_token_logps=policy_token_logps)[0]


def upge_unit_denominator(policy_token_logps: Array, mask: Array) -> Array:
    """log pi_ref = 0: DFT and offline data of an unknown policy, c = A pi. Unlikely tokens hardly train.

    Args:
      policy_token_logps: looked at for its shape only. Held fixed.
      mask: bool, True on completion tokens.

    Shapes: both `[..., T]`, usually `[N, T]`; result float32 `[..., T]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, log-probs not floating, mask not bool.

    Paper: Lv et al., 2025, arXiv 2509.04419.
    """
    return jnp.zeros_like(_fixed(mask, policy_token_logps=policy_token_logps)[0])


def upge_behaviour_denominator(behaviour_token_logps: Array, mask: Array) -> Array:
    """log pi_ref = log pi_old, of the policy that sampled: importance sampling, c = A r.

    Args:
      behaviour_token_logps: log-prob of each token when it was sampled. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.

    Shapes: both `[..., T]`, usually `[N, T]`; result float32 `[..., T]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, log-probs not floating, mask not bool.

    Paper: Lv et al., 2025, arXiv 2509.04419.
    """
    return _fixed(mask, behaviour_token_logps=behaviour_token_logps)[0]


def upge_clipped_weight_denominator(
    policy_token_logps: Array, behaviour_token_logps: Array, mask: Array, *, eps_low: float = 1.0, eps_high: float = 4.0
) -> Array:
    """log pi_ref = log pi - log clip(r, 1 - eps_low, 1 + eps_high): CISPO, c = A clip(r).

    Args:
      policy_token_logps, behaviour_token_logps: log-prob of each token now and when it was sampled. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.
      eps_low: in [0, 1]; 1 leaves the weight open below, as CISPO's authors do.
      eps_high: in [0, inf); tuned by CISPO's authors, 2 to 5 in later work.

    Shapes: all `[..., T]`, usually `[N, T]`; result float32 `[..., T]`. No gradient passes. Log-ratios are cut at +-20.

    Raises:
      AssertionError: shapes differ, log-probs not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: MiniMax, 2025, arXiv 2506.13585 (CISPO).
    """
    _check_clip(eps_low, eps_high)
    policy, behaviour = _fixed(mask, policy_token_logps=policy_token_logps, behaviour_token_logps=behaviour_token_logps)
    ratios = jnp.exp(_cut(policy - behaviour))
    return keep(policy - jnp.log(jnp.clip(ratios, jnp.maximum(1 - eps_low, 1e-9), 1 + eps_high)), mask)


def upge_sequence_denominator(policy_token_logps: Array, behaviour_token_logps: Array, mask: Array) -> Array:
    """log pi_ref = log pi - mean log-ratio of the completion: GSPO, c = A s.

    Args:
      policy_token_logps, behaviour_token_logps: log-prob of each token now and when it was sampled. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.

    Shapes: all `[..., T]`, usually `[N, T]`; result float32 `[..., T]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, log-probs not floating, mask not bool.

    Paper: Zheng et al., 2025, arXiv 2507.18071 (GSPO).
    """
    policy, behaviour = _fixed(mask, policy_token_logps=policy_token_logps, behaviour_token_logps=behaviour_token_logps)
    return keep(policy - _mean(policy - behaviour, mask), mask)


def upge_geometric_denominator(
    policy_token_logps: Array, behaviour_token_logps: Array, token_advantages: Array, mask: Array, *, eps: float = 0.4
) -> Array:
    """log pi_ref = log pi - mean over the completion of the log-ratio clipped to +-eps on PPO's side: GMPO, c = A rho.

    Args:
      policy_token_logps, behaviour_token_logps: log-prob of each token now and when it was sampled. Held fixed.
      token_advantages: their sign says on which side a log-ratio is clipped. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.
      eps: of the log-ratio, in (0, inf).

    Shapes: all `[..., T]`, usually `[N, T]`; result float32 `[..., T]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, an array not floating, mask not bool.
      ValueError: static eps out of range.

    Paper: Zhao et al., 2025, arXiv 2507.20673 (GMPO).
    """
    checks.number("eps", eps, 0.0)
    policy, behaviour, advantages = _fixed(
        mask,
        policy_token_logps=policy_token_logps,
        behaviour_token_logps=behaviour_token_logps,
        token_advantages=token_advantages,
    )
    log_ratios, sign = policy - behaviour, jnp.sign(advantages)
    one_sided = sign * jnp.minimum(sign * log_ratios, sign * jnp.clip(log_ratios, -eps, eps))
    return keep(policy - _mean(one_sided, mask), mask)


def upge_shaped_denominator(policy_token_logps: Array, mask: Array, *, gamma: float = 0.1) -> Array:
    """log pi_ref = 2 log(pi + gamma) - log gamma: LUFFY's demonstrations, c = A gamma pi / (pi + gamma)^2.

    The coefficient is the derivative of pi / (pi + gamma) in log pi: largest at pi = gamma, small at both ends.

    Args:
      policy_token_logps: log-prob of each token under the policy; above 0 counts as 0. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.
      gamma: in (0, inf).

    Shapes: both `[..., T]`, usually `[N, T]`; result float32 `[..., T]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, log-probs not floating, mask not bool.
      ValueError: static gamma out of range.

    Paper: Yan et al., 2025, arXiv 2504.14945 (LUFFY).
    """
    checks.number("gamma", gamma, 0.0)
    (policy,) = _fixed(mask, policy_token_logps=policy_token_logps)
    return keep(2 * jnp.log(jnp.exp(jnp.minimum(policy, 0.0)) + gamma) - jnp.log(gamma), mask)


def upge_floored_denominator(policy_token_logps: Array, mask: Array, *, floor: float = 0.1) -> Array:
    """log pi_ref = log pi - max(log pi, log u): GOLD, c = A max(pi, u).

    Args:
      policy_token_logps: log-prob of each token under the policy. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.
      floor: u, in (0, 1].

    Shapes: both `[..., T]`, usually `[N, T]`; result float32 `[..., T]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, log-probs not floating, mask not bool.
      ValueError: static floor out of range.

    Paper: Pang and He, 2020, arXiv 2009.07839 (GOLD).
    """
    checks.number("floor", floor, 0.0, 1.0, closed="right")
    (policy,) = _fixed(mask, policy_token_logps=policy_token_logps)
    return keep(policy - jnp.maximum(policy, jnp.log(floor)), mask)


def upge_clipped_sequence_denominator(
    policy_token_logps: Array, reference_token_logps: Array, mask: Array, *, eps: float = 0.9
) -> Array:
    """log pi_ref = log pi - log clip(pi(y) / ref(y), 1 - eps, 1 + eps), of the whole completion: A-LoL, c = A clip.

    Args:
      policy_token_logps: log-prob of each token under the policy. Held fixed.
      reference_token_logps: the same under the reference. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.
      eps: in (0, 1).

    Shapes: all `[..., T]`, usually `[N, T]`; result float32 `[..., T]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, log-probs not floating, mask not bool.
      ValueError: static eps out of range.

    Paper: Baheti et al., 2023, arXiv 2305.14718 (A-LoL).
    """
    checks.number("eps", eps, 0.0, 1.0)
    policy, reference = _fixed(mask, policy_token_logps=policy_token_logps, reference_token_logps=reference_token_logps)
    log_ratio = jnp.sum(policy - reference, axis=-1, keepdims=True)
    return keep(policy - jnp.clip(log_ratio, jnp.log1p(-eps), jnp.log1p(eps)), mask)


# --- slot 1: which tokens train --------------------------------------------------------------------------------------


def _inside(log_ratios: Array, advantages: Array, low: Array, high: Array) -> Array:
    """1 where PPO's minimum takes the branch that has a gradient: not yet too far in the direction of the advantage."""
    too_far = ((advantages > 0) & (log_ratios > high)) | ((advantages < 0) & (log_ratios < low))
    return jnp.where(too_far, 0.0, 1.0).astype(log_ratios.dtype)


def upge_no_stabilisation(policy_token_logps: Array, mask: Array) -> Array:
    """1 on every completion token.

    Args:
      policy_token_logps: looked at for its shape only. Held fixed.
      mask: bool, True on completion tokens.

    Shapes: both `[..., T]`, usually `[N, T]`; result float32 `[..., T]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, log-probs not floating, mask not bool.

    Paper: Lv et al., 2025, arXiv 2509.04419.
    """
    return keep(jnp.ones_like(_fixed(mask, policy_token_logps=policy_token_logps)[0]), mask)


def upge_ppo_stabilisation(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    token_advantages: Array,
    mask: Array,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
) -> Array:
    """0 where A > 0 and r > 1 + eps_high, or A < 0 and r < 1 - eps_low: PPO's clip as an indicator.

    Args:
      policy_token_logps, behaviour_token_logps: log-prob of each token now and when it was sampled. Held fixed.
      token_advantages: A. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.
      eps_low, eps_high: in [0, 1] and [0, inf).

    Shapes: all `[..., T]`, usually `[N, T]`; result float32 `[..., T]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, an array not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Lv et al., 2025, arXiv 2509.04419; clip: Schulman et al., 2017, arXiv 1707.06347.
    """
    _check_clip(eps_low, eps_high)
    policy, behaviour, advantages = _fixed(
        mask,
        policy_token_logps=policy_token_logps,
        behaviour_token_logps=behaviour_token_logps,
        token_advantages=token_advantages,
    )
    low, high = jnp.log1p(-eps_low), jnp.log1p(eps_high)
    return keep(_inside(policy - behaviour, advantages, low, high), mask)


def upge_sequence_stabilisation(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    token_advantages: Array,
    mask: Array,
    *,
    eps_low: float = 3e-4,
    eps_high: float = 4e-4,
) -> Array:
    """The mask of `upge_ppo_stabilisation` for the ratio s of the completion: GSPO clips all of its tokens together.

    Args:
      policy_token_logps, behaviour_token_logps: log-prob of each token now and when it was sampled. Held fixed.
      token_advantages: A. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.
      eps_low, eps_high: in [0, 1] and [0, inf); three orders of magnitude below PPO's, as s averages over tokens.

    Shapes: all `[..., T]`, usually `[N, T]`; result float32 `[..., T]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, an array not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Zheng et al., 2025, arXiv 2507.18071 (GSPO).
    """
    _check_clip(eps_low, eps_high)
    policy, behaviour, advantages = _fixed(
        mask,
        policy_token_logps=policy_token_logps,
        behaviour_token_logps=behaviour_token_logps,
        token_advantages=token_advantages,
    )
    low, high = jnp.log1p(-eps_low), jnp.log1p(eps_high)
    return keep(_inside(_mean(policy - behaviour, mask), advantages, low, high), mask)


def upge_log_stabilisation(
    policy_token_logps: Array, behaviour_token_logps: Array, token_advantages: Array, mask: Array, *, eps: float = 0.4
) -> Array:
    """The mask of `upge_ppo_stabilisation` with log r clipped to +-eps: GMPO.

    Args:
      policy_token_logps, behaviour_token_logps: log-prob of each token now and when it was sampled. Held fixed.
      token_advantages: A. Held fixed.
      mask: bool, True on completion tokens; nothing is looked at elsewhere, and the value is 0 there.
      eps: of the log-ratio, in (0, inf).

    Shapes: all `[..., T]`, usually `[N, T]`; result float32 `[..., T]`. No gradient passes.

    Raises:
      AssertionError: shapes differ, an array not floating, mask not bool.
      ValueError: static eps out of range.

    Paper: Zhao et al., 2025, arXiv 2507.20673 (GMPO).
    """
    checks.number("eps", eps, 0.0)
    policy, behaviour, advantages = _fixed(
        mask,
        policy_token_logps=policy_token_logps,
        behaviour_token_logps=behaviour_token_logps,
        token_advantages=token_advantages,
    )
    return keep(_inside(policy - behaviour, advantages, -eps, eps), mask)
