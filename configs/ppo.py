"""PPO with a value head and generalised advantage estimation (Schulman et al., 2017, arXiv 1707.06347).

python -m experiments.reinforce --config=configs/ppo.py --workdir=runs/ppo

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
    )
    config.model.reward_heads = 1  # the value head
    return config
