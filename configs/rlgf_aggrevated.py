"""AggreVaTeD (Chang et al., 2023, arXiv 2306.11816): a guide completes what the policy began.

python -m experiments.reinforce --config=configs/rlgf_aggrevated.py --workdir=runs/rlgf_aggrevated

Not measured yet.
"""

from configs import online


def get_config():
    on_trained = {"mask": "trained_mask"}
    config = online.after_warm_up(
        shaping={
            "aggrevated_mask": {"gives": "trained_mask"},
            "kl_shaped_rewards": {"beta": 0.05, "order": 1} | on_trained,
        },
        advantages={"gae_whitened": {"gamma": 0.99, "lam": 0.95} | on_trained},
        objective={
            "ppo": {"weight": 1.0, "reduction": "token_mean"} | on_trained,
            "ppo_value_loss": {"weight": 0.1, "reduction": "token_mean"} | on_trained,
        },
    )
    config.model.reward_heads = 1  # the value head
    config.rollout.engine = "experiments.engines:aggrevated"  # the guide is the model of the warm-up
    config.rollout.engine_settings = {"beta": 0.9}
    return config
