"""Multi-objective GRPO, every objective standardised before the sum (Li et al., 2025, arXiv 2503.21819).

python -m experiments.reinforce --config=configs/mo_grpo.py --workdir=runs/mo_grpo

Not measured yet.
"""

from configs import online


def get_config():
    return online.two_objectives(
        shaping={},
        advantages={"mo_grpo_normalized_advantages": {"weights": (0.5, 0.5)}},
        objective=online.PPO_AND_KL,
    )
