"""f-DPO with the alpha-divergence half way between both KLs (Wang et al., 2023, arXiv 2309.16240).

python -m experiments.finetune --config=configs/f_dpo.py --workdir=runs/f_dpo

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"f_dpo": {"weight": 1.0, "beta": 0.5, "alpha": 0.5}})
