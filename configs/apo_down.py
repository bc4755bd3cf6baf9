"""APO-down (D'Oosterlinck et al., 2024, arXiv 2408.06266).

python -m experiments.finetune --config=configs/apo_down.py --workdir=runs/apo_down

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"apo_down": {"weight": 1.0, "beta": 0.5}})
