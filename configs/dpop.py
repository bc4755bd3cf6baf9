"""DPO-Positive (Pal et al., 2024, arXiv 2402.13228).

python -m experiments.finetune --config=configs/dpop.py --workdir=runs/dpop

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"dpop": {"weight": 1.0, "beta": 0.5, "lambda_": 50.0}})
