"""GRPO on the worst weighted distance to the best rewards seen (Lin et al., 2024, arXiv 2402.19078).

python -m experiments.reinforce --config=configs/tchebycheff_scalarization.py --workdir=runs/tchebycheff_scalarization

Not measured yet.
"""

from configs import online


def get_config():
    return online.two_objectives(
        shaping={"tchebycheff_running_ideal": {"weights": (0.5, 0.5)}},
        advantages={"grpo_advantages": {}},
        objective=online.PPO_AND_KL,
    )
