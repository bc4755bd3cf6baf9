"""RSO's logistic loss with a reference, which is DPO (Liu et al., 2023, arXiv 2309.06657).

python -m experiments.finetune --config=configs/rso_sigmoid_norm.py --workdir=runs/rso_sigmoid_norm

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"rso_sigmoid_norm": {"weight": 1.0, "gamma": 0.5}})
