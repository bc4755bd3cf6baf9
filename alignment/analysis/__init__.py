"""What the literature's arguments are made of, as pure functions: not losses of a run, but what explains one.

These take probabilities, gradients or logits beside log-probs and return whatever the argument is about, so most have
no place in a config. Two are used by runs: `alignment.training.side_gradients` is `gradients` on a model's parameters,
and `alignment.metrics` has the rankings. Only jax and chex are imported, as by the kernels.
"""

from alignment.analysis.bridge import (
    LogitDecomposition,
    bridge_objective,
    linear_conjugate,
    logit_q_decomposition,
    pearson_conjugate,
    squared_hellinger_conjugate,
)
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
from alignment.analysis.rankings import idealized_log_ratio

__all__ = [
    "Entanglement",
    "LogitDecomposition",
    "ProbabilityGradients",
    "bridge_objective",
    "did_distribution",
    "did_entropy_estimate",
    "did_rejected_distribution",
    "dpo_probability_gradients",
    "entanglement_of_products",
    "entropy",
    "gradient_entanglement",
    "idealized_log_ratio",
    "linear_conjugate",
    "logit_q_decomposition",
    "margin_coefficients",
    "pair_label_probability",
    "pairwise_normalized_direction",
    "pairwise_normalized_factors",
    "pearson_conjugate",
    "squared_hellinger_conjugate",
]
