"""RSO's hinge loss without a reference (Liu et al., 2023, arXiv 2309.06657).

python -m experiments.finetune --config=configs/rso_hinge.py --workdir=runs/rso_hinge

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.461 after (512 samples); mean gold reward
-1.06 -> -1.06; 2.61 nats from the start.
"""

from configs import common


def get_config():
    return common.preference({"rso_hinge": {"weight": 1.0, "gamma": 0.5}})
