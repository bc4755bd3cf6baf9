"""Online runs: how far an update has gone from what sampled, and what the critic knows."""

from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import indicator, keep

Array = jax.Array
_stop = jax.lax.stop_gradient


def _log_ratios(policy_token_logps: Array, behaviour_token_logps: Array, mask: Array) -> Array:
    policy, behaviour = checks.floats(
        policy_token_logps=policy_token_logps, behaviour_token_logps=behaviour_token_logps
    )
    return _stop(keep(policy, mask) - keep(behaviour, mask))


def clip_fraction(
    policy_token_logps: Array,
    behaviour_token_logps: Array,
    mask: Array,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
) -> Array:
    """1 on tokens whose ratio r = pi / pi_old has left [1 - eps_low, 1 + eps_high], on whichever side.

    Clipped PPO drops the gradient of a part of these only: of those that the advantage would drive further out.
    Shapes: `[..., T]` each; result float32 `[..., T]`.
    """
    checks.number("eps_low", eps_low, 0.0, 1.0, closed="left")
    checks.number("eps_high", eps_high, 0.0, closed="left")
    log_ratios = _log_ratios(policy_token_logps, behaviour_token_logps, mask)
    return indicator((log_ratios < jnp.log1p(-eps_low)) | (log_ratios > jnp.log1p(eps_high)), log_ratios)


def approx_kl(policy_token_logps: Array, behaviour_token_logps: Array, mask: Array) -> Array:
    """(r - 1) - log r on each token, r = pi / pi_old: estimates KL(pi_old || pi), never negative, 0 before any update.

    The log-ratio is taken into [-20, 20]. Schulman, 2020, "Approximating KL divergence" (k3).
    Shapes: `[..., T]` each; result float32 `[..., T]`, in nats.
    """
    log_ratios = jnp.clip(_log_ratios(policy_token_logps, behaviour_token_logps, mask), -20.0, 20.0)
    return jnp.expm1(log_ratios) - log_ratios


def explained_variance(
    behaviour_token_values: Array, token_returns: Array, mask: Array, valid: Array, *, axis_name: Any = None
) -> Array:
    """1 - Var(returns - values) / Var(returns) over the tokens of the batch, for `token_mean`: 1 for a perfect critic.

    0 for a critic that says the same everywhere, below 0 for one that misleads; 0 as well where all returns are equal.
    The values are those at the rollout: what the critic knew before it saw the returns. Token t is given
    1 - (e_t - mean e)^2 / Var(returns), e = returns - values, of which the mean over the tokens is the number meant.
    Shapes: `[N, T]`, valid bool `[N]`; result float32 `[N, T]`. `axis_name`: mapped axis that the batch is split over.
    """
    values, returns = checks.floats(behaviour_token_values=behaviour_token_values, token_returns=token_returns)
    checks.boolean(valid=valid)
    checks.same_shape(token_returns=returns, mask=mask)
    counted = mask & valid[..., None]

    def mean(x: Array) -> Array:
        total, count = jnp.sum(keep(x, counted)), jnp.sum(counted)
        if axis_name is not None:
            total, count = jax.lax.psum(total, axis_name), jax.lax.psum(count, axis_name)
        return total / jnp.maximum(count, 1)

    values, returns = keep(values, counted), keep(returns, counted)
    errors = returns - values
    variance = mean(jnp.square(returns - mean(returns)))
    varies = variance > 0
    share = 1 - jnp.square(errors - mean(errors)) / jnp.where(varies, variance, 1.0)
    return _stop(keep(jnp.where(varies | jnp.isnan(variance), share, 0.0), counted))
