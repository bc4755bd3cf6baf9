"""f-DPO with the Jensen-Shannon divergence (Wang et al., 2023, arXiv 2309.16240).

python -m experiments.finetune --config=configs/f_dpo_jensen_shannon.py --workdir=runs/f_dpo_jensen_shannon

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"f_dpo_jensen_shannon": {"weight": 1.0, "beta": 0.5}})
