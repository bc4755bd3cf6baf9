"""Several objectives at once: scalarisations, constraints, dynamic weights, combined gradients, indicators of fronts.

Pure functions of named arrays (the vocabulary in `alignment.statistics`), by their public name. The search for proxy
points, which calls a user's function, is in `alignment.multi_objective.proxy_points`.
"""

from alignment.multi_objective.constraints import (
    constrained_rlhf_mu,
    constrained_rlhf_xi,
    mixed_advantages,
    mu_multiplier_update,
    ppo_sat_rewards,
    safe_rlhf,
    xi_multiplier_update,
)
from alignment.multi_objective.gradients import (
    gradient_weight_update,
    l2_normalized_gram,
    loss_normalized_gram,
    mgda_weights,
    pcgrad_weights,
)
from alignment.multi_objective.pareto import (
    assigned_policies,
    cluster_entropy,
    coverage,
    crowding_distances,
    expected_utility,
    hypervolume,
    hypervolume_gain,
    inverted_generational_distance,
    maximum_utility_loss,
    non_dominated,
    non_dominated_ranks,
    r2_indicator,
    sparsity,
    top_k_diversity,
    top_k_reward,
)
from alignment.multi_objective.scalarizations import (
    linear_scalarization,
    preference_scalarization,
    smooth_tchebycheff_scalarization,
    standardized_linear_scalarization,
    tchebycheff_running_ideal,
    tchebycheff_scalarization,
)
from alignment.multi_objective.search import mean_hypervolume
from alignment.multi_objective.weights import (
    hv_guided_rewards,
    hv_meta_reward,
    maxmin_assignments,
    maxmin_rewards,
    pama_advantages,
    pama_signed_advantages,
)

__all__ = [
    "assigned_policies",
    "cluster_entropy",
    "constrained_rlhf_mu",
    "constrained_rlhf_xi",
    "coverage",
    "crowding_distances",
    "expected_utility",
    "gradient_weight_update",
    "hv_guided_rewards",
    "hv_meta_reward",
    "hypervolume",
    "hypervolume_gain",
    "inverted_generational_distance",
    "l2_normalized_gram",
    "linear_scalarization",
    "loss_normalized_gram",
    "maximum_utility_loss",
    "maxmin_assignments",
    "maxmin_rewards",
    "mean_hypervolume",
    "mgda_weights",
    "mixed_advantages",
    "mu_multiplier_update",
    "non_dominated",
    "non_dominated_ranks",
    "pama_advantages",
    "pama_signed_advantages",
    "pcgrad_weights",
    "ppo_sat_rewards",
    "preference_scalarization",
    "r2_indicator",
    "safe_rlhf",
    "smooth_tchebycheff_scalarization",
    "sparsity",
    "standardized_linear_scalarization",
    "tchebycheff_running_ideal",
    "tchebycheff_scalarization",
    "top_k_diversity",
    "top_k_reward",
    "xi_multiplier_update",
]
