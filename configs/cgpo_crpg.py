"""CGPO with CRPG: calibrated rewards, judges that veto, a KL limit (Xu et al., 2024, arXiv 2409.20370).

python -m experiments.reinforce --config=configs/cgpo_crpg.py --workdir=runs/cgpo_crpg

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"cgpo_crpg_advantages": {"kl_max": 5.0}},
        objective={"reinforce": {"weight": 1.0, "reduction": "sequence_sum"}},
    )
    config.judges = {"ends": {"function": "alignment.rewards.judges:ends_with_full_stop"}}
    return config
