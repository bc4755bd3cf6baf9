"""Dynamic fine-tuning (Wu et al., 2025, arXiv 2508.05629) after SFT: a token's loss times its own probability.

python -m experiments.finetune --config=configs/dft.py --workdir=runs/dft

It starts from a trained model, since from scratch every probability is near 0 and so is every gradient.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.after_sft({"dft": {"weight": 1.0}}, {"token_nll": {}})
    config.data.kind = "completion"
    config.optimizer.learning_rate = 3e-4  # higher than for SFT: the gradients are smaller
    return config
