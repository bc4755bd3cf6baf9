"""NLPO (Ramamurthy et al., 2022, arXiv 2210.01241): PPO on the tokens that an older copy of the policy finds likely.

python -m experiments.reinforce --config=configs/nlpo.py --workdir=runs/nlpo

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
    config.rollout.engine = "experiments.engines:nlpo"
    # The authors' 100 tokens are a third of the vocabulary of bytes.
    config.rollout.engine_settings = {"p": 0.9, "min_tokens": 5, "refresh_every": 5}
    return config
