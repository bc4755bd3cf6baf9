"""A loss named by its parts: hinge link on the length-normalised log-ratio of Tulu 3 (arXiv 2411.15124).

python -m experiments.finetune --config=configs/composed.py --workdir=runs/composed

Any `margin` of alignment/losses/margins.py goes with any `link` of alignment/losses/links.py; their hyperparameters
stand beside them.

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.507 after (512 samples); mean gold reward
-1.06 -> -1.00; 3.67 nats from the start.
"""

from configs import common


def get_config():
    return common.preference(
        {"hinge_norm": {"weight": 1.0, "margin": "length_normalized_log_ratio", "link": "hinge", "beta": 5.0}}
    )
