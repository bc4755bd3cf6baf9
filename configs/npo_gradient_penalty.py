"""NPO with a penalty on the norm of its gradient (Fan et al., 2025, arXiv 2502.05374).

python -m experiments.finetune --config=configs/npo_gradient_penalty.py --workdir=runs/npo_gradient_penalty

Measured with the other methods of unlearning: docs/unlearning.md.
"""

from configs import npo


def get_config():
    config = npo.get_config()
    config.training.gradient = "gradient_penalty"
    config.smoothing.rho = 0.1
    return config
