"""Policy gradients against an opponent: the reward of a completion is how likely it is preferred to the opponent's.

`win_rates` are of the rollout (`config.rollout.judge`): the probability that a completion is preferred to the
completions of the same prompt that the opponent wrote (`experiments.engines.nash_md`, `nash_ema`); without an opponent
to those of the policy itself. The opponent's completions are there to be compared with, and are not trained on.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient


def nash_md_pg(policy_logps: Array, reference_logps: Array, win_rates: Array, *, tau: float = 0.008) -> Array:
    """Nash-MD-PG on whole completions: -(P - 1/2 - tau (log pi - log ref)) log pi, the first factor held fixed.

    Its expected gradient over samples of the policy is that of -(P(pi > opponent) - tau KL(pi || ref)), the opponent
    held fixed. 1/2 is a control variate and no more. The opponent of Nash-MD is a mixture of policy and reference, that
    of Nash-EMA an average of earlier parameters; at the two ends of the mixture it is self-play, and RLHF against the
    reference. The value means nothing; its gradient does.

    Args:
      policy_logps: log pi(y|x) of completions of the policy, summed over tokens. Trained.
      reference_logps: the same under the reference. Held fixed.
      win_rates: P, the probability that the completion is preferred to one of the opponent's. Held fixed.
      tau: weight of the KL, in [0, inf); 0.008 in the paper. (TRL's `beta`; the paper's beta is the mixture's.)

    Shapes: all `[...]`, usually `[N]`; result float32 `[...]`.

    Raises:
      AssertionError: shapes differ, log-probs or win rates not floating.
      ValueError: static tau out of range.

    Paper: Munos et al., 2023, arXiv 2312.00886. TRL multiplies log-ratio and log-prob token by token, which leaves out
    what a token does to the KL of the later ones; here it is the paper's. `nash_md_pg_tokens` is the same in tokens.
    """
    checks.number("tau", tau, 0.0, closed="left")
    policy, reference, wins = checks.floats(
        policy_logps=policy_logps, reference_logps=reference_logps, win_rates=win_rates
    )
    return -_stop(wins - 0.5 - tau * (policy - reference)) * policy


def nash_md_pg_tokens(
    policy_token_logps: Array, reference_token_logps: Array, win_rates: Array, mask: Array, *, tau: float = 0.008
) -> Array:
    """Nash-MD-PG by tokens: -(P - 1/2 - tau * sum over s >= t of (log pi_s - log ref_s)) log pi_t.

    What came before a token it cannot change, so the KL of those before t is left out: the expected gradient is that of
    `nash_md_pg`, with less variance. Summed over the completion (`sequence_sum`). A completion of one token has exactly
    the value of `nash_md_pg`.

    Args:
      policy_token_logps: log-prob of each completion token under the policy. Trained.
      reference_token_logps: the same under the reference. Held fixed.
      win_rates: P, of the whole completion. Held fixed.
      mask: bool, True on completion tokens.
      tau: weight of the KL, in [0, inf).

    Shapes: log-probs and mask `[..., T]`, win rates `[...]`; result float32 `[..., T]`, 0 behind the mask.

    Raises:
      AssertionError: shapes do not agree, log-probs or win rates not floating, mask not bool.
      ValueError: static tau out of range.

    Paper: Munos et al., 2023, arXiv 2312.00886.
    """
    checks.number("tau", tau, 0.0, closed="left")
    policy, reference = checks.floats(
        policy_token_logps=policy_token_logps, reference_token_logps=reference_token_logps
    )
    (wins,) = checks.floats(win_rates=win_rates)
    checks.leading_shape(win_rates=wins, policy_token_logps=policy)
    policy, reference = keep(policy, mask), keep(reference, mask)
    later = jnp.cumsum((policy - reference)[..., ::-1], axis=-1)[..., ::-1]
    return keep(-_stop(wins[..., None] - 0.5 - tau * later) * policy, mask)
