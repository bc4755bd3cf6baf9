"""EXO of pairs (Ji et al., 2024, arXiv 2402.00856).

python -m experiments.finetune --config=configs/exo_pair.py --workdir=runs/exo_pair

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"exo_pair": {"weight": 1.0, "beta": 0.5, "label_smoothing": 1e-3}})
