"""RLVR (Lambert et al., 2024, arXiv 2411.15124): a verified answer is worth 10, PPO with a value head.

python -m experiments.reinforce --config=configs/rlvr.py --workdir=runs/rlvr

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={"kl_shaped_rewards": {"beta": 0.05}},
        advantages={"gae_whitened": {}},
        objective={
            "ppo": {"weight": 1.0, "reduction": "token_mean"},
            "ppo_value_loss": {"weight": 0.1, "reduction": "token_mean"},
        },
        metrics=online.PPO_METRICS,
    )
    config.model.reward_heads = 1  # the value head
    config.rewards.sorting.weight = 10.0
    return config
