"""Safe RLHF: a reward less a cost whose multiplier learns (Dai et al., 2023, arXiv 2310.12773).

python -m experiments.reinforce --config=configs/safe_rlhf.py --workdir=runs/safe_rlhf

Not measured yet.
"""

from configs import online


def get_config():
    config = online.two_objectives(
        shaping={"safe_rlhf": {"d": -0.65}},
        advantages={"rloo_advantages": {}},
        objective=online.PPO_AND_KL,
    )
    config.rewards = {"sorting": {}, "unsafe": {"weight": -1.0, "function": "alignment.rewards.lengths:length_cost"}}
    return config
