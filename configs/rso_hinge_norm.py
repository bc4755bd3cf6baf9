"""RSO's hinge loss with a reference (Liu et al., 2023, arXiv 2309.06657).

python -m experiments.finetune --config=configs/rso_hinge_norm.py --workdir=runs/rso_hinge_norm

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"rso_hinge_norm": {"weight": 1.0, "gamma": 0.5}})
