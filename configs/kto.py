"""Kahneman-Tversky Optimization (Ethayarajh et al., 2024, arXiv 2402.01306) on single labelled completions, after SFT.

python -m experiments.finetune --config=configs/kto.py --workdir=runs/kto

Not measured yet.
"""

from configs import common


def get_config():
    config = common.after_sft({"kto": {"weight": 1.0, "beta": 0.5}}, {"kl_to_reference": {}})
    config.data.kind = "unpaired"
    return config
