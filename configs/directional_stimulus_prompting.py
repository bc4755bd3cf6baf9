"""Directional stimulus prompting (Li et al., 2023, arXiv 2302.11520): NLPO on hints to a frozen summariser.

python -m experiments.reinforce --config=configs/directional_stimulus_prompting.py --workdir=runs/hints

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={"adaptive_kl_rewards": {"beta": 0.05, "target": 0.5}},
        advantages={"gae_whitened": {}},
        objective={
            "ppo": {"weight": 1.0, "reduction": "token_mean"},
            "ppo_value_loss": {"weight": 0.1, "reduction": "token_mean"},
        },
        metrics=online.PPO_METRICS,
    )
    config.model.reward_heads = 1  # the value head
    config = online.on_task(config, "keywords")
    config.rollout.engine = "experiments.engines:nlpo"
    config.rollout.engine_settings = {"p": 0.9, "min_tokens": 5, "refresh_every": 5}
    config.rewards = {  # the overlap times 10, as in the paper, and the hits of the hint besides
        "stimulus": {"weight": 10.0, "function": "alignment.rewards.assisted_tasks:stimulus"},
        "hint_hits": {"weight": 0.1, "function": "alignment.rewards.assisted_tasks:hint_hits"},
    }
    return config
