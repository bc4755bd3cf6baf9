"""APO-zero (D'Oosterlinck et al., 2024, arXiv 2408.06266).

python -m experiments.finetune --config=configs/apo_zero.py --workdir=runs/apo_zero

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"apo_zero": {"weight": 1.0, "beta": 0.5}})
