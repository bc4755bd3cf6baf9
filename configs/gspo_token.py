"""GSPO-token (Zheng et al., 2025, arXiv 2507.18071): the sequence's ratio, an advantage per token.

python -m experiments.reinforce --config=configs/gspo_token.py --workdir=runs/gspo_token

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"grpo_advantages": {}},
        objective={"gspo_token": {"weight": 1.0, "reduction": "sequence_mean"}},
    )
    return config
