"""AlphaPO (Gupta et al., 2025, arXiv 2501.03884) after SFT: SimPO with a reward of another shape.

python -m experiments.finetune --config=configs/alpha_po.py --workdir=runs/alpha_po

Not measured yet.
"""

from configs import common


def get_config():
    # No metric that reads the reference either: none is kept in memory.
    return common.after_sft(
        {"alpha_po": {"weight": 1.0, "alpha": 0.25, "beta": 2.5, "gamma": 0.1}},
        {"chosen_logp": {}, "rejected_logp": {}},
    )
