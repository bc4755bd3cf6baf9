"""Policy gradients of divergences between the policy pi and an explicit target p = P / Z: DPG and f-DPG.

Samples come from q (`behaviour`), which may be an older policy. `target_logps` and `log_partitions` are those of
`alignment.policy_gradients.target_distributions`. Sequence log-probs are sums over tokens, in nats. Log-ratios are
bounded before an exponential, at 20, and at 10 where the ratio is squared: the weights are heavy-tailed, and must not
overflow.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep
from alignment.losses.stateful import StatefulKernel
from alignment.policy_gradients.target_distributions import IMPOSSIBLE

Array = jax.Array
_stop = jax.lax.stop_gradient

_CAP = 20.0
_FARTHEST = 100.0  # log-ratio that a completion without probability counts as, where a divergence is infinite


def _target_ratios(target_logps: Array, log_partitions: Array, logps: Array) -> tuple[Array, Array]:
    """log(p / other), 0 where p is 0, and where it is not."""
    there = target_logps > IMPOSSIBLE / 2
    return jnp.where(there, jnp.where(there, target_logps, 0.0) - log_partitions - logps, 0.0), there


def _four(policy_logps, behaviour_logps, target_logps, log_partitions) -> list[Array]:
    policy, *fixed = checks.floats(
        policy_logps=policy_logps, behaviour_logps=behaviour_logps, target_logps=target_logps,
        log_partitions=log_partitions,
    )  # fmt: skip
    return [policy, *map(_stop, fixed)]


def dpg(policy_logps: Array, behaviour_logps: Array, target_logps: Array, log_partitions: Array) -> Array:
    """Distributional policy gradient: -sg(P / (Z q)) log pi, whose expected gradient is that of KL(p || pi).

    Maximum likelihood on samples of the target, had by weighting samples of q, which may be any proposal that reaches
    what the target does. Zero in expectation at pi = p. A completion with P = 0 weighs nothing.

    Args:
      policy_logps: log pi of each completion, summed over tokens. Trained.
      behaviour_logps: log q. Held fixed.
      target_logps: log P. Held fixed.
      log_partitions: log Z. Held fixed; 0 gives the original DPG, whose steps are Z times as long.

    Shapes: all `[...]`, usually `[N]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ or an array is not floating.

    Paper: Khalifa et al., 2020, arXiv 2012.11635; per context: Korbak et al., 2021, arXiv 2112.00791. disco agrees, up
    to the bound of the weight at e^20.
    """
    policy, behaviour, target, log_z = _four(policy_logps, behaviour_logps, target_logps, log_partitions)
    ratios, there = _target_ratios(target, log_z, behaviour)
    return -jnp.where(there, jnp.exp(jnp.minimum(ratios, _CAP)), 0.0) * policy


class BaselineState(NamedTuple):
    """mean: float32 [], of the pseudo-rewards; count: float32 [], samples in it, at most the window."""

    mean: Array
    count: Array


def _baseline_init(*, window: int = 1024) -> BaselineState:
    checks.positive_integer("window", window)
    return BaselineState(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))


def _baseline_update(
    state: BaselineState, aux: dict[str, Array], *, window: int = 1024, axis_name: Any = None
) -> BaselineState:
    """The mean so far; beyond `window` samples earlier ones fade instead of dropping out."""
    checks.positive_integer("window", window)
    values, valid = aux["pseudo_rewards"], aux["valid"]
    sums = (jnp.sum(keep(values, valid)), jnp.sum(valid.astype(values.dtype)))
    total, count = sums if axis_name is None else jax.lax.psum(sums, axis_name)
    weight = jnp.minimum(state.count + count, jnp.maximum(float(window), count))
    mean = state.mean + (total - count * state.mean) / jnp.maximum(weight, 1)
    return BaselineState(mean, weight)


_DOC = """f-DPG with {name}: -sg(pi / q (r - B)) log pi, r = -f'(pi / p) = {reward}.

    {about}
    The expected gradient is that of D_f = {divergence} for samples of any q, whatever the baseline B, which is the
    mean of r over past samples; the first batch has none.

    Args:
      policy_logps: log pi of each completion, summed over tokens. Trained.
      behaviour_logps: log q. Held fixed.
      target_logps: log P. Held fixed.
      log_partitions: log Z. Held fixed.
      valid: bool, False for rows that do not count in the baseline.
      state: `BaselineState`.
      window: samples that the baseline remembers, about; at least 1.

    Shapes: all `[...]`, usually `[N]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ, a log-prob not floating, `valid` not bool.
      ValueError: static window out of range.

    Paper: Go et al., 2023, arXiv 2302.08215. disco agrees{code}.
    """


def _f_dpg(pseudo_reward: Callable[[Array, Array], Array], **texts: str) -> StatefulKernel:
    """The method for one divergence; `pseudo_reward(log(p / pi), where p is not 0)` gives r."""

    def loss(
        policy_logps: Array,
        behaviour_logps: Array,
        target_logps: Array,
        log_partitions: Array,
        valid: Array,
        state: BaselineState,
        *,
        window: int = 1024,
    ) -> tuple[Array, dict[str, Array]]:
        checks.positive_integer("window", window)
        policy, behaviour, target, log_z = _four(policy_logps, behaviour_logps, target_logps, log_partitions)
        checks.boolean(valid=valid)
        checks.same_shape(policy_logps=policy, valid=valid)
        (mean,) = checks.floats(mean=state.mean)
        if mean.shape:
            raise AssertionError(f"state.mean must be a number, got shape {mean.shape}")
        fixed = _stop(policy)
        rewards = pseudo_reward(*_target_ratios(target, log_z, fixed))
        weights = jnp.exp(jnp.clip(fixed - behaviour, -_CAP, _CAP))
        values = -weights * (rewards - _stop(mean)) * policy
        return values, {"pseudo_rewards": rewards, "valid": valid}

    loss.__doc__ = _DOC.format(**{"code": ""} | texts)
    return StatefulKernel(_baseline_init, loss, _baseline_update)


def _capped(ratios: Array, there: Array, cap: float = _CAP) -> Array:
    """p / pi, bounded above."""
    return jnp.where(there, jnp.exp(jnp.minimum(ratios, cap)), 0.0)


def _forward_kl(ratios, there):
    return _capped(ratios, there)


def _bounded(ratios, there):
    return jnp.where(there, jnp.maximum(ratios, -_FARTHEST), -_FARTHEST)


def _reverse_kl(ratios, there):
    return _bounded(ratios, there) - 1


def _total_variation(ratios, there):
    return jnp.where(there, 0.5 * jnp.sign(ratios), -0.5)


def _jensen_shannon(ratios, there):
    return jnp.where(there, jax.nn.softplus(ratios), 0.0) - jnp.log(2.0)


def _chi_squared(ratios, there):
    return jnp.square(_capped(ratios, there, _CAP / 2)) - 1


def _reverse_chi_squared(ratios, there):
    return 2 * (1 - jnp.exp(jnp.minimum(-_bounded(ratios, there), _CAP)))


f_dpg_forward_kl = _f_dpg(
    _forward_kl,
    name="the forward KL",
    reward="p / pi",
    divergence="KL(p || pi)",
    about="Covers all of the target; without its baseline it is `dpg`.",
)
f_dpg_reverse_kl = _f_dpg(
    _reverse_kl,
    name="the reverse KL",
    reward="-log(pi / p) - 1",
    divergence="KL(pi || p)",
    about="RLHF's own: with `rlhf_target` the gradient is minus 1 / beta times that of E[r] - beta KL(pi || a).\n    "
    "Infinite for a target of 0, which counts as 100 nats here, as does all that lies further.",
)
f_dpg_total_variation = _f_dpg(
    _total_variation,
    name="the total variation",
    reward="-sign(pi / p - 1) / 2",
    divergence="the sum of |pi - p| / 2",
    about="Bounded; only on which side of the target the policy is counts.",
)
f_dpg_jensen_shannon = _f_dpg(
    _jensen_shannon,
    name="the Jensen-Shannon divergence",
    reward="log(1 + p / pi) - log 2",
    divergence="KL(pi || m) + KL(p || m), m = (pi + p) / 2",
    about="The paper's default. Twice the usual divergence, as in the paper.",
    code="; the divergence it logs has the usual half",
)
f_dpg_chi_squared = _f_dpg(
    _chi_squared,
    name="the chi-squared divergence",
    reward="(p / pi)^2 - 1",
    divergence="the sum of (p - pi)^2 / pi",
    about="Even more mass-covering than the forward KL, and of higher variance.",
)
f_dpg_reverse_chi_squared = _f_dpg(
    _reverse_chi_squared,
    name="the reverse chi-squared divergence",
    reward="2 (1 - pi / p)",
    divergence="the sum of (pi - p)^2 / p",
    about="Infinite for a target of 0; pi / p is bounded at e^20.",
)
