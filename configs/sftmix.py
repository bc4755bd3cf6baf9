"""SFTMix (Xiao et al., 2024, arXiv 2410.05248): SFT with Mixup between what a model is sure of and what it is not.

python -m experiments.finetune --config=configs/sftmix.py --workdir=runs/sftmix

First plain SFT is trained in WORKDIR/teacher; its three checkpoints say how confident they are of every demonstration.
Then a new model is trained on rows of two demonstrations, one of each half. The baseline, plain SFT on the same rows,
is `--config.objective.sftmix.mu=0.0`.

Not measured yet.
"""

from ml_collections import ConfigDict

from configs import common


def get_config():
    config = common.taught_by(common.sft(), reference())
    config.data.packed, config.data.batch_size, config.data.by_confidence = False, 32, True
    config.data.corruption = ConfigDict({"mixup": {"alpha": 0.5}})
    config.objective = ConfigDict({"sftmix": {"weight": 1.0, "mu": 0.2}})
    sides = ("confident", "unconfident")
    config.metrics = ConfigDict({f"{side}_nll": {"kernel": "token_nll", "side": side} for side in sides})
    return config


def reference():
    """The run whose checkpoints are asked: three, a third of the training apart."""
    config = common.sft()
    config.gold.samples, config.checkpoints.every, config.checkpoints.keep_last = 0, 100, 3
    return config
