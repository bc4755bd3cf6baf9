"""Pretraining with human feedback (Korbak et al., 2023, arXiv 2302.08582): unlikelihood, or regression on rewards.

python -m experiments.finetune --config=configs/phf_losses.py --workdir=runs/phf_unlikelihood
python -m experiments.finetune --config=configs/phf_losses.py:phf_rwr --workdir=runs/phf_rwr

Also phf_soft_unlikelihood. Segments of the corpus score 1 where they are wrong or unkind, else 0. The paper's beta of
10 is for scores of another size; at these it is nearly plain likelihood.

Not measured yet.
"""

from configs import common


def get_config(loss="phf_unlikelihood"):
    settings = {"beta": 0.5} if loss == "phf_rwr" else {}
    config = common.demonstrations("phf_scored", {loss: {"weight": 1.0, **settings}})
    config.data.kind = "segments"
    return config
