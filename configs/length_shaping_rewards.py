"""Rule rewards of length and repetition on a task (Yeo et al., 2025, arXiv 2502.03373; DAPO, arXiv 2503.14476).

Right answers earn more the shorter they are, n-grams that come again cost, and so does coming near the length limit.

python -m experiments.reinforce --config=configs/length_shaping_rewards.py --workdir=runs/length_shaping_rewards

Not measured yet.
"""

from ml_collections import ConfigDict

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={"overlong_shaping": {"max_length": 16, "cache_length": 4}},
        advantages={"grpo_advantages": {}},
        objective={"ppo": {"weight": 1.0, "reduction": "token_mean"}},
    )
    config.rewards = ConfigDict(
        {
            "cosine": {"function": "alignment.rewards.length:cosine_length_reward"},
            "repetition": {"function": "alignment.rewards.length:repetition", "weight": 0.5},
        }
    )
    return config
