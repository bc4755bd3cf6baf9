"""Direct Preference Optimization (Rafailov et al., 2023, arXiv 2305.18290) after SFT: the default run.

python -m experiments.finetune --config=configs/dpo.py --workdir=runs/dpo
"""

from configs import common


def get_config():
    return common.preference({"dpo": {"weight": 1.0, "beta": 0.5}})
