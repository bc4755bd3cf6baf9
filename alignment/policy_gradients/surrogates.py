"""What stands between an advantage and a gradient: the loss terms of the policy-gradient methods, and PPO's critic.

r_t = exp(log pi(y_t) - log pi_old(y_t)) is the importance ratio of a token to the policy that sampled it, A its
advantage; both log pi_old and A are held fixed, always. Minimised values come back, per token `[..., T]` where the
paper weighs tokens and per completion `[...]` where it weighs sequences; which mean is taken over them is the config's
choice, and each docstring names the paper's.

Log-ratios are clipped before the exponential, at 20 for a token (e^20 = 5e8) and at 10 for a sequence's mean, as verl
does: a ratio that large is a mismatch of sampler and trainer, it must not overflow, and has no gradient.
"""

import math

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep, masked_sum

Array = jax.Array
_stop = jax.lax.stop_gradient

_TOKEN_CAP = 20.0
_SEQUENCE_CAP = 10.0


def _check_eps(eps_low, eps_high) -> None:
    checks.number("eps_low", eps_low, 0.0, closed="left")
    checks.number("eps_high", eps_high, 0.0, closed="left")


def _tokens(policy_token_logps, behaviour_token_logps, token_advantages, mask) -> tuple[Array, Array, Array]:
    """Policy log-probs, log-ratios and advantages at the tokens that count, 0 elsewhere."""
    policy, behaviour, advantages = checks.floats(
        policy_token_logps=policy_token_logps,
        behaviour_token_logps=behaviour_token_logps,
        token_advantages=token_advantages,
    )
    policy = keep(policy, mask)
    return policy, policy - keep(_stop(behaviour), mask), keep(_stop(advantages), mask)


def _sequences(policy_token_logps, behaviour_token_logps, advantages, mask) -> tuple[Array, Array, Array]:
    """Log-ratios at the tokens that count, the completions' advantages, and their lengths (at least 1)."""
    policy, behaviour = checks.floats(
        policy_token_logps=policy_token_logps, behaviour_token_logps=behaviour_token_logps
    )
    (advantages,) = checks.floats(advantages=advantages)
    checks.leading_shape(advantages=advantages, policy_token_logps=policy)
    log_ratios = keep(policy, mask) - keep(_stop(behaviour), mask)
    return log_ratios, _stop(advantages), jnp.maximum(jnp.sum(mask, axis=-1), 1)


def _ratio(log_ratios: Array, cap: float = _TOKEN_CAP) -> Array:
    return jnp.exp(jnp.clip(log_ratios, -cap, cap))


def _outside(ratios: Array, advantages: Array, eps_low: float, eps_high: float) -> Array:
    """Where a step that the advantage asks for has already gone past the bound on its side."""
    return ((advantages > 0) & (ratios > 1 + eps_high)) | ((advantages < 0) & (ratios < 1 - eps_low))


def _clipped(ratios: Array, advantages: Array, eps_low: float, eps_high: float) -> Array:
    """max(-A r, -A clip(r, 1 - eps_low, 1 + eps_high)).

    With `where`, not with min and max: those share the gradient between equal branches, which halves it at the bound.
    """
    bound = jnp.where(advantages > 0, 1 + eps_high, 1 - eps_low)
    return -advantages * jnp.where(_outside(ratios, advantages, eps_low, eps_high), bound, ratios)


def reinforce(policy_token_logps: Array, token_advantages: Array, mask: Array) -> Array:
    """-A_t log pi(y_t): the score-function gradient of samples drawn from the policy that is trained.

    With one advantage for all tokens of a completion and the reduction `sequence_sum`, a completion is one action. The
    value means nothing; its gradient -A does.

    Args:
      policy_token_logps: log-prob of each completion token under the policy. Trained.
      token_advantages: advantage of each token. Held fixed.
      mask: bool, True on completion tokens.

    Shapes: all `[..., T]`; result float32 `[..., T]`, 0 behind the mask.

    Raises:
      AssertionError: shapes differ, log-probs or advantages not floating, mask not bool.

    Paper: Ahmadian et al., 2024, arXiv 2402.14740 (with `sequence_sum`); Li et al., 2023, arXiv 2310.10505.
    """
    policy, advantages = checks.floats(policy_token_logps=policy_token_logps, token_advantages=token_advantages)
    return -keep(_stop(advantages), mask) * keep(policy, mask)


def ppo(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    token_advantages: Array,
    mask: Array,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
) -> Array:
    """PPO's clipped surrogate per token: max(-A r, -A clip(r, 1 - eps_low, 1 + eps_high)).

    No gradient where the token already moved past the bound in the direction its advantage asks for: A > 0 and
    r > 1 + eps_high, or A < 0 and r < 1 - eps_low. In the other direction nothing is clipped: with A < 0 the loss grows
    with r (see `ppo_dual_clip`). eps_high > eps_low is DAPO's clip-higher, which lets rare tokens grow.

    Args:
      policy_token_logps: log-prob of each completion token under the policy. Trained.
      behaviour_token_logps: the same under the policy that sampled. Held fixed.
      token_advantages: advantage of each token. Held fixed.
      mask: bool, True on completion tokens.
      eps_low, eps_high: how far the ratio may fall and rise, in [0, inf); on the ratio, not its logarithm.

    Shapes: all `[..., T]`; result float32 `[..., T]`, in the units of the advantages, 0 behind the mask. Reduction:
    `token_mean`; GRPO's is `sequence_mean`, Dr. GRPO's `constant`.

    Raises:
      AssertionError: shapes differ, log-probs or advantages not floating, mask not bool.
      ValueError: static eps_low or eps_high out of range.

    Paper: Schulman et al., 2017, arXiv 1707.06347; two bounds: Yu et al., 2025, arXiv 2503.14476 (0.2 and 0.28).
    """
    _check_eps(eps_low, eps_high)
    _, log_ratios, advantages = _tokens(policy_token_logps, behaviour_token_logps, token_advantages, mask)
    return _clipped(_ratio(log_ratios), advantages, eps_low, eps_high)


def ppo_dual_clip(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    token_advantages: Array,
    mask: Array,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    dual_clip: float = 3,
) -> Array:
    """`ppo`, but where A < 0 never above -dual_clip * A: min(max(-A r, -A clip(r)), -c A).

    A token that became far more likely although its advantage is negative would otherwise have a loss, and a gradient,
    as large as its ratio; here it has none.

    Args:
      policy_token_logps: log-prob of each completion token under the policy. Trained.
      behaviour_token_logps: the same under the policy that sampled. Held fixed.
      token_advantages: advantage of each token. Held fixed.
      mask: bool, True on completion tokens.
      eps_low, eps_high: as in `ppo`, in [0, inf).
      dual_clip: c, in (1, inf].

    Shapes: all `[..., T]`; result float32 `[..., T]`, in the units of the advantages, 0 behind the mask.

    Raises:
      AssertionError: shapes differ, log-probs or advantages not floating, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Ye et al., 2019, arXiv 1912.09729, on PPO, arXiv 1707.06347; 3 is their value and verl's.
    """
    _check_eps(eps_low, eps_high)
    checks.number("dual_clip", dual_clip, 1.0, math.inf, closed="right")
    _, log_ratios, advantages = _tokens(policy_token_logps, behaviour_token_logps, token_advantages, mask)
    ratios = _ratio(log_ratios)
    far = (advantages < 0) & (ratios > dual_clip)
    capped = jnp.minimum(_stop(ratios), dual_clip)  # dual_clip where it is far; never infinite
    return jnp.where(far, -advantages * capped, _clipped(ratios, advantages, eps_low, eps_high))


def ppo_sequence(
    policy_logps: Array, behaviour_logps: Array, advantages: Array, *, eps_low: float = 0.2, eps_high: float = 0.2
) -> Array:
    """PPO's clipped surrogate with the whole completion as one action: r = exp(log pi(y) - log pi_old(y)).

    The ratio of a long completion leaves the clip range after a small step of each token; `gspo` takes its T-th root.

    Args:
      policy_logps: summed log-prob of each completion under the policy. Trained.
      behaviour_logps: the same under the policy that sampled. Held fixed.
      advantages: advantage of each completion. Held fixed.
      eps_low, eps_high: how far the ratio may fall and rise, in [0, inf).

    Shapes: all `[...]`, usually `[N]`; result float32 `[...]`, in the units of the advantages.

    Raises:
      AssertionError: shapes differ, log-probs or advantages not floating.
      ValueError: static eps_low or eps_high out of range.

    Paper: Ahmadian et al., 2024, arXiv 2402.14740, is on-policy (`reinforce`); this is TRL's RLOO for several epochs.
    """
    _check_eps(eps_low, eps_high)
    policy, behaviour, advantages = checks.floats(
        policy_logps=policy_logps, behaviour_logps=behaviour_logps, advantages=advantages
    )
    return _clipped(_ratio(policy - _stop(behaviour)), _stop(advantages), eps_low, eps_high)


def ppo_value_loss(
    token_values: Array, behaviour_token_values: Array, token_returns: Array, mask: Array, *, clip: float = 0.2
) -> Array:
    """max((v - R)^2, (clip(v, v_old - c, v_old + c) - R)^2) / 2: regression of the critic that moves at most c at once.

    The gradient is v - R inside the band, and where leaving it made the error larger; it is 0 outside the band where
    the clipped error is the larger one. c is in units of the reward: for rewards of +-10 a band of 0.2 freezes the
    critic. c = inf is the plain squared error.

    Args:
      token_values: the critic before each token. Trained.
      behaviour_token_values: the same at the rollout. Held fixed.
      token_returns: what to regress on, from `gae`. Held fixed.
      mask: bool, True on completion tokens.
      clip: c, in (0, inf].

    Shapes: all `[..., T]`; result float32 `[..., T]`, in squared units of the reward, 0 behind the mask. Reduction:
    `token_mean`.

    Raises:
      AssertionError: shapes differ, values or returns not floating, mask not bool.
      ValueError: static clip out of range.

    Paper: the reference implementation of Schulman et al., 2017, arXiv 1707.06347 (the paper does not clip values).
    """
    checks.number("clip", clip, 0.0, math.inf, closed="right")
    values, old, returns = checks.floats(
        token_values=token_values, behaviour_token_values=behaviour_token_values, token_returns=token_returns
    )
    values, old, returns = keep(values, mask), keep(_stop(old), mask), keep(_stop(returns), mask)
    held = jnp.clip(values, old - clip, old + clip)
    return jnp.maximum(jnp.square(values - returns), jnp.square(held - returns)) / 2


def _sequence_log_ratio(log_ratios: Array, mask: Array, lengths: Array) -> Array:
    return masked_sum(log_ratios, mask) / lengths


def gspo(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    advantages: Array,
    mask: Array,
    *,
    eps_low: float = 3e-4,
    eps_high: float = 4e-4,
) -> Array:
    """max(-A s, -A clip(s, 1 - eps_low, 1 + eps_high)), s = exp(mean over t of log r_t): whole completions are clipped.

    s is the geometric mean of the token ratios, so its noise falls with the length; the bounds are a thousand times
    tighter than PPO's and those are no substitute. dL/dlog pi(y_t) = -A s / |y| for each token of an unclipped y.

    Args:
      policy_token_logps: log-prob of each completion token under the policy. Trained.
      behaviour_token_logps: the same under the policy that sampled. Held fixed.
      advantages: advantage of each completion. Held fixed.
      mask: bool, True on completion tokens; a row without one has the ratio 1.
      eps_low, eps_high: how far s may fall and rise, in [0, inf).

    Shapes: log-probs and mask `[..., T]`; advantages and result float32 `[...]`, usually `[N]`, in the units of the
    advantages. Reduction: `example_mean`.

    Raises:
      AssertionError: shapes do not agree, log-probs or advantages not floating, mask not bool.
      ValueError: static eps_low or eps_high out of range.

    Paper: Zheng et al., 2025, arXiv 2507.18071. The cap of 10 on log s is verl's and Tunix's.
    """
    _check_eps(eps_low, eps_high)
    log_ratios, advantages, lengths = _sequences(policy_token_logps, behaviour_token_logps, advantages, mask)
    s = _ratio(_sequence_log_ratio(log_ratios, mask, lengths), _SEQUENCE_CAP)
    return _clipped(s, advantages, eps_low, eps_high)


def gspo_token(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    token_advantages: Array,
    mask: Array,
    *,
    eps_low: float = 3e-4,
    eps_high: float = 4e-4,
) -> Array:
    """`gspo` with an advantage per token: the ratio is s_t = sg[s] exp(log pi(y_t) - sg[log pi(y_t)]).

    Each token carries the value of its sequence's ratio and the gradient of its own log-prob. With one advantage for
    all tokens of a completion, value and gradient under `sequence_mean` are those of `gspo`.

    Args:
      policy_token_logps: log-prob of each completion token under the policy. Trained.
      behaviour_token_logps: the same under the policy that sampled. Held fixed.
      token_advantages: advantage of each token. Held fixed.
      mask: bool, True on completion tokens.
      eps_low, eps_high: how far s may fall and rise, in [0, inf).

    Shapes: all `[..., T]`; result float32 `[..., T]`, in the units of the advantages, 0 behind the mask. Reduction:
    `sequence_mean`; the others count the length twice.

    Raises:
      AssertionError: shapes differ, log-probs or advantages not floating, mask not bool.
      ValueError: static eps_low or eps_high out of range.

    Paper: Zheng et al., 2025, arXiv 2507.18071.
    """
    _check_eps(eps_low, eps_high)
    policy, log_ratios, advantages = _tokens(policy_token_logps, behaviour_token_logps, token_advantages, mask)
    lengths = jnp.maximum(jnp.sum(mask, axis=-1), 1)
    log_s = _stop(_sequence_log_ratio(log_ratios, mask, lengths))[..., None]
    return _clipped(_ratio(policy - _stop(policy) + log_s, _SEQUENCE_CAP), advantages, eps_low, eps_high)


def cispo(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    token_advantages: Array,
    mask: Array,
    *,
    eps_low: float = 1.0,
    eps_high: float = 4.0,
) -> Array:
    """-w A log pi(y_t), w = sg[clip(r, 1 - eps_low, 1 + eps_high)]: the weight is clipped, no token loses its gradient.

    dL/dlog pi = -w A. Inside the band that is PPO's gradient; where PPO gives a token up, this goes on with the weight
    at the bound. The value means nothing, it contains log pi.

    Args:
      policy_token_logps: log-prob of each completion token under the policy. Trained.
      behaviour_token_logps: the same under the policy that sampled. Held fixed.
      token_advantages: advantage of each token. Held fixed.
      mask: bool, True on completion tokens.
      eps_low, eps_high: bounds of the weight, in [0, inf); eps_low from 1 on is no lower bound.

    Shapes: all `[..., T]`; result float32 `[..., T]`, 0 behind the mask. Reduction: `token_mean`.

    Raises:
      AssertionError: shapes differ, log-probs or advantages not floating, mask not bool.
      ValueError: static eps_low or eps_high out of range.

    Paper: MiniMax, 2025, arXiv 2506.13585, which tunes eps_high and states no value; 4 (a weight of up to 5) is common
    since. The bound is 1 + eps_high as in the paper and verl; TRL's `epsilon_high` is the bound itself.
    """
    _check_eps(eps_low, eps_high)
    policy, log_ratios, advantages = _tokens(policy_token_logps, behaviour_token_logps, token_advantages, mask)
    weights = jnp.clip(_stop(_ratio(log_ratios)), 1 - eps_low, 1 + eps_high)
    return -weights * advantages * policy


def cispo_masked(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    token_advantages: Array,
    mask: Array,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
) -> Array:
    """-M sg[r] A log pi(y_t), M = 0 where PPO would clip the token and 1 elsewhere: the paper's unified form.

    Its gradient is that of `ppo` with the same bounds; its value means nothing, it contains log pi.

    Args:
      policy_token_logps: log-prob of each completion token under the policy. Trained.
      behaviour_token_logps: the same under the policy that sampled. Held fixed.
      token_advantages: advantage of each token. Held fixed.
      mask: bool, True on completion tokens.
      eps_low, eps_high: as in `ppo`, in [0, inf).

    Shapes: all `[..., T]`; result float32 `[..., T]`, 0 behind the mask. Reduction: `token_mean`.

    Raises:
      AssertionError: shapes differ, log-probs or advantages not floating, mask not bool.
      ValueError: static eps_low or eps_high out of range.

    Paper: MiniMax, 2025, arXiv 2506.13585.
    """
    _check_eps(eps_low, eps_high)
    policy, log_ratios, advantages = _tokens(policy_token_logps, behaviour_token_logps, token_advantages, mask)
    ratios = _stop(_ratio(log_ratios))
    return jnp.where(_outside(ratios, advantages, eps_low, eps_high), 0.0, -ratios * advantages * policy)


def gmpo(
    policy_token_logps: Array, behaviour_token_logps: Array, advantages: Array, mask: Array, *, eps: float = 0.4
) -> Array:
    """-A exp(mean over t of d~_t), d~ = log r clipped to eps above (A > 0) or to -eps below (A < 0), token by token.

    The geometric mean of clipped token ratios. The clip is on the log-ratio and one-sided, as PPO's; a clipped token
    keeps its constant factor in the mean and loses its gradient, the others have -A rho / |y|.

    Args:
      policy_token_logps: log-prob of each completion token under the policy. Trained.
      behaviour_token_logps: the same under the policy that sampled. Held fixed.
      advantages: advantage of each completion; 0 gives 0. Held fixed.
      mask: bool, True on completion tokens; a row without one has the ratio 1.
      eps: bound of the log-ratio, in nats, in [0, inf); 0.4 is a ratio between 0.67 and 1.49.

    Shapes: log-probs and mask `[..., T]`; advantages and result float32 `[...]`, usually `[N]`, in the units of the
    advantages. Reduction: `example_mean`.

    Raises:
      AssertionError: shapes do not agree, log-probs or advantages not floating, mask not bool.
      ValueError: static eps out of range.

    Paper: Zhao et al., 2025, arXiv 2507.20673.
    """
    checks.number("eps", eps, 0.0, closed="left")
    log_ratios, advantages, lengths = _sequences(policy_token_logps, behaviour_token_logps, advantages, mask)
    sign = jnp.sign(advantages)[..., None]
    clipped = sign * log_ratios > eps
    log_ratios = jnp.where(clipped, sign * eps, jnp.clip(log_ratios, -_TOKEN_CAP, _TOKEN_CAP))
    return -advantages * jnp.exp(_sequence_log_ratio(log_ratios, mask, lengths))
