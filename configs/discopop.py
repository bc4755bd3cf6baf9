"""DiscoPOP, the log-ratio modulated loss (Lu et al., 2024, arXiv 2406.08414).

python -m experiments.finetune --config=configs/discopop.py --workdir=runs/discopop

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"discopop": {"weight": 1.0, "beta": 0.5, "tau": 0.05}})
