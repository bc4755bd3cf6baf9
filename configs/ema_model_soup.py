"""Supervised fine-tuning that ends with the exponential average of its parameters.

Soups of several runs (Wortsman et al., 2022, arXiv 2203.05482) are `alignment.training.averaging.uniform_soup` and
`greedy_soup`; experiments.soup interpolates finished runs.

python -m experiments.finetune --config=configs/ema_model_soup.py --workdir=runs/ema_model_soup

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.000 before and 0.395 after (512 samples); mean gold reward
-6.27 -> -1.17.
"""

from configs import common


def get_config():
    config = common.sft()
    config.optimizer.average = "exponential"
    return config
