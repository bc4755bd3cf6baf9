"""Controlled decoding's prefix value (CD-FUDGE; Mudgal et al., 2023, arXiv 2310.17022): a head on the frozen SFT model.

The model samples, nothing of it but the head is trained, and the head learns what the samples earn.

python -m experiments.reinforce --config=configs/controlled_decoding_value.py --workdir=runs/controlled_decoding_value

Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={}, advantages={}, objective={"cd_fudge": {"weight": 1.0, "reduction": "sequence_mean"}}
    )
    config.model.reward_heads = 1
    config.optimizer.only = ("reward_head",)
    config.optimizer.learning_rate = 3e-3
    return config
