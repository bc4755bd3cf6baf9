"""TPO-L (Saeidi et al., 2024, arXiv 2405.16681): mean log-probs with a target margin, and a gold completion.

python -m experiments.finetune --config=configs/tpo_l.py --workdir=runs/tpo_l

Not measured yet.
"""

from configs import common


def get_config():
    # No metric that reads the reference either: none is kept in memory.
    config = common.after_sft(
        {"tpo_l": {"weight": 1.0, "beta": 2.0, "gamma": 0.5, "alpha": 0.05}}, {"chosen_logp": {}, "rejected_logp": {}}
    )
    config.data.kind = "triples"
    return config
