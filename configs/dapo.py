"""DAPO (Yu et al., 2025, arXiv 2503.14476): clip-higher, token mean, overlong shaping, dynamic sampling.

python -m experiments.reinforce --config=configs/dapo.py --workdir=runs/dapo

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={"overlong_shaping": {"max_length": 16, "cache_length": 4}},
        advantages={"grpo_advantages": {}},
        objective={"ppo": {"weight": 1.0, "reduction": "token_mean", "eps_low": 0.2, "eps_high": 0.28}},
    )
    config.rollout.dynamic_sampling = True
    return config
