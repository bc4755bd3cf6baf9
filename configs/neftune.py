"""SFT with noise on the embeddings (NEFTune; Jain et al., 2023, arXiv 2310.05914).

python -m experiments.finetune --config=configs/neftune.py --workdir=runs/neftune

The paper tries alpha = 5, 10 and 15; `--config.training.embedding_noise=0` is configs/sft.py.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.sft()
    config.training.embedding_noise = 5.0
    return config
