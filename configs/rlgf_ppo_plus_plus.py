"""PPO++ (Chang et al., 2023, arXiv 2306.11816): PPO that goes on from where a guide stopped.

python -m experiments.reinforce --config=configs/rlgf_ppo_plus_plus.py --workdir=runs/rlgf_ppo_plus_plus

Not measured yet.
"""

from ml_collections import ConfigDict

from configs import online


def get_config():
    return with_guide("ppo_plus_plus", beta=0.8)


def with_guide(method: str, mask: dict | None = None, **engine_settings) -> ConfigDict:
    """PPO on what the kernel METHOD_mask leaves to train; the guide is the model of the warm-up."""
    on_trained = {"mask": "trained_mask"}
    config = online.after_warm_up(
        shaping={
            f"{method}_mask": {"gives": "trained_mask"} | (mask or {}),
            "kl_shaped_rewards": {"beta": 0.05, "order": 1} | on_trained,
        },
        advantages={"gae_whitened": {"gamma": 0.99, "lam": 0.95} | on_trained},
        objective={
            "ppo": {"weight": 1.0, "reduction": "token_mean"} | on_trained,
            "ppo_value_loss": {"weight": 0.1, "reduction": "token_mean"} | on_trained,
        },
    )
    config.model.reward_heads = 1  # the value head
    config.rollout.engine = f"experiments.engines:{method}"
    config.rollout.engine_settings = engine_settings
    return config
