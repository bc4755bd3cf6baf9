"""Bayesian reward heads fitted to a stage-1 reward (Yan et al., 2024, arXiv 2409.15360): five means and deviations.

The stage-1 reward is the record's `reward`, here the corpus' true one. --config=configs/brme.py:brme_nll is the form in
which the deviations do not shrink to nothing. A run names it as {"checkpoint": WORKDIR, "combine": "brme_of_heads"}.

python -m experiments.finetune --config=configs/brme.py --workdir=runs/brme

Not measured yet.
"""

from configs import common


def get_config(loss="brme_loss"):
    config = common.reward_model({loss: {"weight": 1.0}}, {})
    config.model.reward_heads = 2 * 5
    config.data.kind = "ratings"
    return config
