"""What the literature's arguments are made of, as pure functions: not losses of a run, but what explains one.

These take probabilities, gradients or logits beside log-probs and return whatever the argument is about, so most have
no place in a config. Two are used by runs: `alignment.training.side_gradients` is `gradients` on a model's parameters,
and `alignment.metrics` has the rankings. Only jax and chex are imported, as by the kernels.
"""

from alignment.analysis.bandits import (
    BanditHistory,
    best_of_n_objective,
    best_of_n_with_negatives_objective,
    dpo_objective,
    forward_kl_gradient,
    ipo_objective,
    kl_regularised_optimum,
    offline_bandit,
    on_policy_bandit,
    peak_rewards,
    reinforce_objective,
    reverse_kl_gradient,
    reward_weighted_objective,
)
from alignment.analysis.bridge import (
    LogitDecomposition,
    bridge_objective,
    linear_conjugate,
    logit_q_decomposition,
    pearson_conjugate,
    squared_hellinger_conjugate,
)
from alignment.analysis.frontier import Frontier, kl_reward_frontier
from alignment.analysis.gradients import (
    Entanglement,
    ProbabilityGradients,
    dpo_probability_gradients,
    entanglement_of_products,
    gradient_entanglement,
    margin_coefficients,
    pairwise_normalized_direction,
    pairwise_normalized_factors,
)
from alignment.analysis.information import (
    did_distribution,
    did_entropy_estimate,
    did_rejected_distribution,
    entropy,
    pair_label_probability,
)
from alignment.analysis.proxy_points import (
    ConstrainedHistory,
    mu_constrained_bandit,
    summed_rewards_bandit,
    turning_utilities,
    xi_constrained_bandit,
)
from alignment.analysis.rankings import idealized_log_ratio, roc_auc

__all__ = [
    "BanditHistory",
    "ConstrainedHistory",
    "Entanglement",
    "Frontier",
    "LogitDecomposition",
    "ProbabilityGradients",
    "best_of_n_objective",
    "best_of_n_with_negatives_objective",
    "bridge_objective",
    "did_distribution",
    "did_entropy_estimate",
    "did_rejected_distribution",
    "dpo_objective",
    "dpo_probability_gradients",
    "entanglement_of_products",
    "entropy",
    "forward_kl_gradient",
    "gradient_entanglement",
    "idealized_log_ratio",
    "ipo_objective",
    "kl_regularised_optimum",
    "kl_reward_frontier",
    "linear_conjugate",
    "logit_q_decomposition",
    "margin_coefficients",
    "mu_constrained_bandit",
    "offline_bandit",
    "on_policy_bandit",
    "pair_label_probability",
    "pairwise_normalized_direction",
    "pairwise_normalized_factors",
    "peak_rewards",
    "pearson_conjugate",
    "reinforce_objective",
    "reverse_kl_gradient",
    "reward_weighted_objective",
    "roc_auc",
    "squared_hellinger_conjugate",
    "summed_rewards_bandit",
    "turning_utilities",
    "xi_constrained_bandit",
]
