"""NPO at the worst nearby weights, with a retain term at the current ones (Fan et al., 2025, arXiv 2502.05374).

python -m experiments.finetune --config=configs/sam_unlearn.py --workdir=runs/sam_unlearn

Measured with the other methods of unlearning: docs/unlearning.md.
"""

from configs import npo


def get_config():
    config = npo.get_config()
    config.training.gradient = "sam"
    return config
