"""CLIMB's curriculum of objectives (Diehl Martinez et al., 2023, arXiv 2311.08886): terms that are active for a while.

python -m experiments.finetune --config=configs/climb_objectives.py --workdir=runs/climb_objectives

The coarser task is trained throughout, and the finer one joins it after a fifth of the training, as in the authors'
`multitask_pos_nv_mlm`. There they are the parts of speech and masked words; the corpus has no parts of speech, and here
rts asks whether a token was replaced and slm which one stood there (configs/rts.py). The paper reports no consistent
gain.

Not measured yet.
"""

from ml_collections import ConfigDict

from configs import common


def get_config():
    config = common.sft()
    config.model.reward_heads = 1
    config.data.corruption = ConfigDict({"random_substitution": {"vocabulary": 256}})
    config.gold.samples = 0
    config.objective = ConfigDict(
        {
            "rts": {"active": (0.0, 1.0)},
            "slm": {"kernel": "sft", "mask": "trained_mask", "active": (0.2, 1.0)},
        }
    )
    config.metrics = ConfigDict({"token_nll": {"mask": "trained_mask"}})
    return config
