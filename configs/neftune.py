"""SFT with noise on the embeddings (NEFTune; Jain et al., 2023, arXiv 2310.05914).

python -m experiments.finetune --config=configs/neftune.py --workdir=runs/neftune

The paper tries alpha = 5, 10 and 15; `--config.training.embedding_noise=0` is configs/sft.py.

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.000 before and 0.324 after (512 samples); mean gold reward
-6.27 -> -1.76.
"""

from configs import common


def get_config():
    config = common.sft()
    config.training.embedding_noise = 5.0
    return config
