"""CGPO with CODPO: the best satisfying completion against the worst violating one (Xu et al., 2024, arXiv 2409.20370).

python -m experiments.reinforce --config=configs/cgpo_codpo.py --workdir=runs/cgpo_codpo

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"cgpo_satisfiable": {"gives": "valid"}},
        objective={"cgpo_codpo": {"weight": 1.0, "beta": 0.1, "nll_weight": 0.1}},
    )
    config.judges = {"ends": {"function": "alignment.rewards.judges:ends_with_full_stop"}}
    return config
