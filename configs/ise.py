"""SFT with instruction segment embeddings (ISE; Wu et al., 2024, arXiv 2410.09102): who said a token is added to it.

python -m experiments.finetune --config=configs/ise.py --workdir=runs/ise

`--config.model.num_instruction_levels=0` is the same without them. Measured against delimiters: docs/injection.md.
"""

from configs import common


def get_config():
    return common.instruction_hierarchy()
