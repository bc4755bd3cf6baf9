"""PF-PPO (Shen and Zhang, 2024, arXiv 2409.06957): PPO on completions redrawn by how far the reward can be trusted.

python -m experiments.reinforce --config=configs/pf_ppo.py --workdir=runs/pf_ppo

Best and random; `pf_bw_weights` (best and worst) and `pf_pow_weights` take the same place. Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={"kl_shaped_rewards": {"beta": 0.01}},
        advantages={"gae_whitened": {}, "pf_br_weights": {"gives": "sampling_weights"}},
        objective={
            "ppo": {"weight": 1.0, "reduction": "token_mean"},
            "ppo_value_loss": {"weight": 0.1, "reduction": "token_mean"},
        },
        metrics=online.PPO_METRICS,
    )
    config.model.reward_heads = 1  # the value head
    return config
