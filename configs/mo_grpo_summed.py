"""Multi-objective GRPO as in the paper, on the weighted sum (Li et al., 2025, arXiv 2503.21819).

python -m experiments.reinforce --config=configs/mo_grpo_summed.py --workdir=runs/mo_grpo_summed

Not measured yet.
"""

from configs import online


def get_config():
    return online.two_objectives(
        shaping={},
        advantages={"mo_grpo_advantages": {"weights": (0.5, 0.5)}},
        objective=online.PPO_AND_KL,
    )
