"""CGPO over two tasks with shares of their own and a judge of one of them (Xu et al., 2024, arXiv 2409.20370).

python -m experiments.reinforce --config=configs/cgpo_multitask.py --workdir=runs/cgpo_multitask

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={
            "cgpo_crpg_advantages": {"order": 0},
            "cgpo_task_advantages": {"order": 1, "shares": (0.5, 0.5)},
        },
        objective={"reinforce": {"weight": 1.0, "reduction": "sequence_sum"}},
    )
    config.data.source = config.before.data.source = "task:copy_reverse+sorting"
    config.judges = {"digits": {"function": "alignment.rewards.judges:digits_if_sorting"}}
    return config
