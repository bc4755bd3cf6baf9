"""Evaluation: from outcomes, rewards, verdicts and confidences to the numbers that are reported.

Pure functions of what a file of results holds; `experiments.evaluate` reads the files, and gives each function the
columns that its arguments name. They run once, on the host: numpy in float64, except for what training can use too
(`steerability`, `distance_weights`: jax in float32). Judges, rewards and the checkers of instructions are in
`alignment.rewards`.
"""

from alignment.evaluation.backdoors import (
    attack_success_rate,
    backdoor_persistence,
    false_trigger_rate,
    trigger_gap,
)
from alignment.evaluation.best_of_n import best_of_n_curve, best_of_n_weights
from alignment.evaluation.calibration import (
    area_under_risk_coverage,
    brier_parts,
    brier_score,
    expected_calibration_error,
    judge_calibration,
    reliability,
    risk_coverage,
    similarity_threshold,
    wrong_at_confidence,
)
from alignment.evaluation.elo import bradley_terry_elo, length_controlled_elo
from alignment.evaluation.facts import factscore, length_penalty
from alignment.evaluation.instruction_following import ifeval
from alignment.evaluation.intervals import bootstrap, percentiles, wilson_interval
from alignment.evaluation.length_control import length_controlled_win_rate
from alignment.evaluation.mismatch import (
    distance_weights,
    effective_sample_size,
    objective_mismatch,
    selection_regret,
    turning_point,
)
from alignment.evaluation.reward_benchmarks import reward_bench, reward_bench_2, reward_bench_ties
from alignment.evaluation.steering import miscalibration, orthogonality, steerability, steering_error
from alignment.evaluation.unlearning import answer_probability, forget_quality, rouge_l_recall, truth_ratio
from alignment.evaluation.win_rates import (
    outcome_of_verdict,
    outcomes_of_scores,
    policy_win_rate,
    verdict_weight,
    win_rate,
    win_rate_matrix,
)

__all__ = [
    "answer_probability",
    "area_under_risk_coverage",
    "attack_success_rate",
    "backdoor_persistence",
    "best_of_n_curve",
    "best_of_n_weights",
    "bootstrap",
    "bradley_terry_elo",
    "brier_parts",
    "brier_score",
    "distance_weights",
    "effective_sample_size",
    "expected_calibration_error",
    "factscore",
    "false_trigger_rate",
    "forget_quality",
    "ifeval",
    "judge_calibration",
    "length_controlled_elo",
    "length_controlled_win_rate",
    "length_penalty",
    "miscalibration",
    "objective_mismatch",
    "orthogonality",
    "outcome_of_verdict",
    "outcomes_of_scores",
    "percentiles",
    "policy_win_rate",
    "reliability",
    "reward_bench",
    "reward_bench_2",
    "reward_bench_ties",
    "risk_coverage",
    "rouge_l_recall",
    "selection_regret",
    "similarity_threshold",
    "steerability",
    "steering_error",
    "trigger_gap",
    "truth_ratio",
    "turning_point",
    "verdict_weight",
    "wilson_interval",
    "win_rate",
    "win_rate_matrix",
    "wrong_at_confidence",
]
