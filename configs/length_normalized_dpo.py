"""Length-normalised DPO of Tulu 3 (Lambert et al., 2024, arXiv 2411.15124).

python -m experiments.finetune --config=configs/length_normalized_dpo.py --workdir=runs/length_normalized_dpo

Not measured yet.
"""

from configs import common


def get_config():
    return common.preference({"length_normalized_dpo": {"weight": 1.0, "beta": 5.0}})
