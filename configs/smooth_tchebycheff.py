"""GRPO on the smooth Tchebycheff scalarisation, both rewards at most 1 (Lin et al., 2024, arXiv 2402.19078).

python -m experiments.reinforce --config=configs/smooth_tchebycheff.py --workdir=runs/smooth_tchebycheff

Not measured yet.
"""

from configs import online


def get_config():
    return online.two_objectives(
        shaping={"smooth_tchebycheff_scalarization": {"weights": (0.5, 0.5), "ideal": (1.0, 1.0)}},
        advantages={"grpo_advantages": {}},
        objective=online.PPO_AND_KL,
    )
