"""PPO-SAT: a fixed sum of rewards, each cut at its proxy point (Moskovitz et al., 2023, arXiv 2310.04373).

python -m experiments.reinforce --config=configs/ppo_sat.py --workdir=runs/ppo_sat

Not measured yet.
"""

from configs import online


def get_config():
    return online.two_objectives(
        shaping={"ppo_sat_rewards": {"weights": (0.5, 0.5), "thresholds": (0.7, -0.4)}},
        advantages={"grpo_advantages": {}},
        objective=online.PPO_AND_KL,
    )
