"""NPO with a penalty on the curvature along its gradient (Fan et al., 2025, arXiv 2502.05374).

python -m experiments.finetune --config=configs/npo_curvature_penalty.py --workdir=runs/npo_curvature_penalty

Measured with the other methods of unlearning: docs/unlearning.md.
"""

from configs import npo


def get_config():
    config = npo.get_config()
    config.training.gradient = "curvature_penalty"
    config.smoothing.rho = 1.0
    return config
