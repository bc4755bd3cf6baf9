"""DPO of low-rank adapters (LoRA, Hu et al., 2021, arXiv 2106.09685) after SFT.

python -m experiments.finetune --config=configs/dpo_lora.py --workdir=runs/dpo_lora

The reference is the frozen model with the adapters switched off, so there is no second copy of the weights.
WORKDIR/adapter is what PEFT loads, WORKDIR/hugging_face the model with the adapters merged in.
"""

from configs import common


def get_config():
    config = common.preference({"dpo": {"weight": 1.0, "beta": 0.5}})
    config.adapter.rank = 8
    config.adapter.alpha = 16.0
    config.optimizer.learning_rate = 4e-4
    return config
