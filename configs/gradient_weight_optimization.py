"""Reward weights by mirror ascent on gradient influence (Lu et al., 2025, arXiv 2509.11452).

python -m experiments.reinforce --config=configs/gradient_weight_optimization.py --workdir=runs/gradient_weights

Not measured yet.
"""

from configs import online


def get_config():
    config = online.two_objectives(
        shaping={},
        advantages={"objective_advantages": {"gives": "objective_advantages"}},
        objective={
            "solved": {"kernel": "ppo_of_objective", "objective": 0, "reduction": "sequence_mean"},
            "terse": {"kernel": "ppo_of_objective", "objective": 1, "reduction": "sequence_mean"},
        },
    )
    config.training.gradient = "gradient_weights"
    config.gradient_weights.eta, config.gradient_weights.mu = 1e-4, 1e-3  # gradients of a small model have norms near 1
    return config
