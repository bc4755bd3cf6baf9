"""DNO (Rosset et al., 2024, arXiv 2404.03715): soft policy iteration as regression on win rates.

python -m experiments.reinforce --config=configs/dno.py --workdir=runs/dno

Not measured yet.
"""

from configs import online


def get_config():
    return online.in_rounds(online.on_pairs({"dno": {"weight": 1.0, "eta": 0.1}}))
