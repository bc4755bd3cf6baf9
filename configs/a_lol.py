"""A-LoL (Baheti et al., 2023, arXiv 2305.14718), with the group mean in place of a value of the prompt.

python -m experiments.reinforce --config=configs/a_lol.py --workdir=runs/a_lol

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"dr_grpo_advantages": {}},
        objective={"a_lol": {"weight": 1.0}},
    )
    return config
