"""NPO averaged over noisy weights (Fan et al., 2025, arXiv 2502.05374).

python -m experiments.finetune --config=configs/npo_randomized_smoothing.py --workdir=runs/npo_randomized_smoothing

Measured with the other methods of unlearning: docs/unlearning.md.
"""

from configs import npo


def get_config():
    config = npo.get_config()
    config.training.gradient = "randomized_smoothing"
    return config
