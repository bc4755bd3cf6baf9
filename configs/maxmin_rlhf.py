"""MaxMin-RLHF: the reward of the group that is worst off (Chakraborty et al., 2024, arXiv 2402.08925).

python -m experiments.reinforce --config=configs/maxmin_rlhf.py --workdir=runs/maxmin_rlhf

Not measured yet.
"""

from configs import online


def get_config():
    return online.two_objectives(
        shaping={"maxmin_rewards": {}},
        advantages={"grpo_advantages": {}},
        objective=online.PPO_AND_KL,
    )
