"""REINFORCE++ (Hu et al., 2025, arXiv 2501.03262): KL in the reward, advantages whitened over the batch.

python -m experiments.reinforce --config=configs/reinforce_pp.py --workdir=runs/reinforce_pp

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={"kl_shaped_rewards": {"beta": 0.01}},
        advantages={"reinforce_pp_advantages": {}},
        objective={"ppo": {"weight": 1.0, "reduction": "token_mean"}},
    )
    return config
