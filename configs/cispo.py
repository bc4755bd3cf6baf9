"""CISPO (MiniMax, 2025, arXiv 2506.13585): clipped importance weights, no token masked out.

python -m experiments.reinforce --config=configs/cispo.py --workdir=runs/cispo

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"grpo_advantages": {}},
        objective={"cispo": {"weight": 1.0, "reduction": "token_mean"}},
    )
    return config
