"""DPO by pairwise normalised gradients (Yuan et al., 2024, arXiv 2410.13828): both sides of a pair pull equally hard.

python -m experiments.finetune --config=configs/pairwise_normalized_gradient.py --workdir=runs/pairwise_normalized_gradient

Not measured yet.
"""  # noqa: E501

from configs import common


def get_config():
    config = common.preference({"dpo": {"weight": 1.0, "beta": 0.5}})
    config.training.gradient = "pairwise_normalized"
    return config
