"""DPO of low-rank adapters on a 4-bit base (QLoRA, Dettmers et al., 2023, arXiv 2305.14314) after SFT.

python -m experiments.finetune --config=configs/dpo_qlora.py --workdir=runs/dpo_qlora

The frozen matrices are stored as 4-bit NormalFloats by qwix (pip install alignment[qlora]); the adapters are float32.
"""

from configs import common


def get_config():
    config = common.preference({"dpo": {"weight": 1.0, "beta": 0.5}})
    config.adapter.rank = 8
    config.adapter.alpha = 16.0
    config.adapter.quantize = "nf4"
    config.optimizer.learning_rate = 4e-4
    return config
