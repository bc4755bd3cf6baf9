"""Binary classifier optimization of pairs (Jung et al., 2024, arXiv 2404.04656).

python -m experiments.finetune --config=configs/bco_pair.py --workdir=runs/bco_pair

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"bco_pair": {"weight": 1.0, "beta": 0.5}})
