"""What any run can log: pure functions of the same named arrays as the losses, per example or per token, unreduced.

No gradient passes through any of them. Token metrics are 0 behind the mask and are meant for `token_mean`; metrics per
example for `example_mean`. `beta` should be that of the loss, or rewards of different runs do not compare. Metrics of
one sequence (`token_nll`, `token_entropy`, `kl_to_reference`, `sequence_forward_kls`) are bound to a side by the
config.
"""

from alignment.metrics.both_sides import (
    chosen_log_ratio,
    pair_mass_log_ratio,
    rejected_log_ratio,
    unseen_mass,
)
from alignment.metrics.log_probs import (
    chosen_logp,
    kl_to_reference,
    rejected_logp,
    sequence_forward_kls,
    sequence_kl,
    sequence_kl_k3,
    token_entropy,
    token_nll,
)
from alignment.metrics.pairs import (
    chosen_reward,
    general_preference_accuracy,
    rejected_reward,
    reward_accuracy,
    reward_heads_accuracy,
    reward_margin,
    reward_model_accuracy,
    step_accuracy,
)
from alignment.metrics.rankings import (
    dpo_flip_loss,
    dpo_flipped,
    first_token_ndcg,
    idealized_ranking_accuracy,
    length_normalized_idealized_ranking_accuracy,
    length_normalized_ranking_accuracy,
    list_ranking_accuracy,
    ranking_accuracy,
    ranking_accuracy_with_ties,
)
from alignment.metrics.targets import (
    draft_acceptance,
    forward_kl_to_teacher,
    kl_to_teacher,
    target_kl,
    target_kl_gain,
    target_total_variation,
)
from alignment.metrics.updates import (
    approx_kl,
    clip_fraction,
    explained_variance,
)

__all__ = [
    "approx_kl",
    "chosen_log_ratio",
    "chosen_logp",
    "chosen_reward",
    "clip_fraction",
    "dpo_flip_loss",
    "dpo_flipped",
    "draft_acceptance",
    "explained_variance",
    "first_token_ndcg",
    "forward_kl_to_teacher",
    "general_preference_accuracy",
    "idealized_ranking_accuracy",
    "kl_to_reference",
    "kl_to_teacher",
    "length_normalized_idealized_ranking_accuracy",
    "length_normalized_ranking_accuracy",
    "list_ranking_accuracy",
    "pair_mass_log_ratio",
    "ranking_accuracy",
    "ranking_accuracy_with_ties",
    "rejected_log_ratio",
    "rejected_logp",
    "rejected_reward",
    "reward_accuracy",
    "reward_heads_accuracy",
    "reward_margin",
    "reward_model_accuracy",
    "sequence_forward_kls",
    "sequence_kl",
    "sequence_kl_k3",
    "step_accuracy",
    "target_kl",
    "target_kl_gain",
    "target_total_variation",
    "token_entropy",
    "token_nll",
    "unseen_mass",
]
