"""SPPO (Wu et al., 2024, arXiv 2405.00675): log-ratios regressed on win rates against the policy itself.

python -m experiments.reinforce --config=configs/sppo.py --workdir=runs/sppo

The paper has eta = 1000 for language models, whose log-ratios are those of hundreds of tokens.

Not measured yet.
"""

from configs import online


def get_config():
    return online.in_rounds(online.on_pairs({"sppo": {"weight": 1.0, "eta": 10.0}}))
