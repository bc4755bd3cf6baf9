"""Everything between a rollout and its loss: shaping of rewards, advantage estimators, surrogates, penalties, trackers.

Pure functions of named arrays (the vocabulary in `alignment.statistics`), by their public name.
"""

from alignment.policy_gradients.consistency import (
    copo_blend_weights,
    copo_forced_blend_weights,
    copo_global_advantages,
    copo_nonzero_blend_weights,
    copo_surrogate,
)
from alignment.policy_gradients.discriminative import (
    disco_b_likelihood_ratio,
    disco_b_log_likelihood,
    disco_likelihood_ratio,
    disco_log_likelihood,
    disco_trust_region,
)
from alignment.policy_gradients.group_methods import (
    lite_ppo_advantages,
    ngrpo_advantages,
    nsr_advantages,
    psr_advantages,
    stratified_grpo_advantages,
    weighted_reinforce_advantages,
)

__all__ = [
    "copo_blend_weights",
    "copo_forced_blend_weights",
    "copo_global_advantages",
    "copo_nonzero_blend_weights",
    "copo_surrogate",
    "disco_b_likelihood_ratio",
    "disco_b_log_likelihood",
    "disco_likelihood_ratio",
    "disco_log_likelihood",
    "disco_trust_region",
    "lite_ppo_advantages",
    "ngrpo_advantages",
    "nsr_advantages",
    "psr_advantages",
    "stratified_grpo_advantages",
    "weighted_reinforce_advantages",
]
