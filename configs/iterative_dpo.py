"""Iterative DPO (Xiong et al., 2023, arXiv 2312.11456): rounds of DPO on samples of the latest policy.

python -m experiments.reinforce --config=configs/iterative_dpo.py --workdir=runs/iterative_dpo

The moving variant: each round's reference is the policy that wrote its samples. `--config.reference.update_every=0` is
the fixed one, whose reference stays the model after the warm-up.

Not measured yet.
"""

from configs import online


def get_config():
    return online.in_rounds(online.on_pairs({"dpo": {"weight": 1.0, "beta": 0.1}}))
