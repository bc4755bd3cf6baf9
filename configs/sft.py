"""Supervised fine-tuning (next-token prediction) on the generated corpus, packed.

python -m experiments.finetune --config=configs/sft.py --workdir=runs/sft
"""

from configs import common


def get_config():
    return common.sft()
