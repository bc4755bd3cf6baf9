"""Triple Preference Optimization (Saeidi et al., 2024, arXiv 2405.16681): pairs, and a gold completion to imitate.

python -m experiments.finetune --config=configs/tpo.py --workdir=runs/tpo

Not measured yet.
"""

from configs import common


def get_config():
    # No metric that reads the reference either: none is kept in memory.
    config = common.after_sft(
        {"tpo": {"weight": 1.0, "beta": 0.01, "alpha": 1.0}}, {"chosen_logp": {}, "rejected_logp": {}}
    )
    config.data.kind = "triples"
    return config
