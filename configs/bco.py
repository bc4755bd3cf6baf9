"""Binary Classifier Optimization (Jung et al., 2024, arXiv 2404.04656) on single labelled completions, after SFT.

python -m experiments.finetune --config=configs/bco.py --workdir=runs/bco

Not measured yet.
"""

from configs import common


def get_config():
    config = common.after_sft({"bco": {"weight": 1.0, "beta": 0.5}}, {"kl_to_reference": {}})
    config.data.kind = "unpaired"
    return config
