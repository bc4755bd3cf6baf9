"""NPO whose result is the mean of its iterates (Fan et al., 2025, arXiv 2502.05374).

python -m experiments.finetune --config=configs/npo_weight_averaging.py --workdir=runs/npo_weight_averaging

Measured with the other methods of unlearning: docs/unlearning.md.
"""

from configs import npo


def get_config():
    config = npo.get_config()
    config.optimizer.average = "mean"
    config.optimizer.average_start, config.optimizer.average_interval = 10, 2
    return config
