"""SimPO (Meng et al., 2024, arXiv 2405.14734) after SFT: no reference, mean log-probs, a target margin.

python -m experiments.finetune --config=configs/simpo.py --workdir=runs/simpo

Not measured yet.
"""

from configs import common


def get_config():
    # No metric that reads the reference either: none is kept in memory.
    return common.after_sft(
        {"simpo": {"weight": 1.0, "beta": 2.0, "gamma": 0.5}}, {"chosen_logp": {}, "rejected_logp": {}}
    )
