"""ORPO (Hong et al., 2024, arXiv 2403.07691), here after SFT as its neighbours; the paper starts from the base model.

python -m experiments.finetune --config=configs/orpo.py --workdir=runs/orpo

Not measured yet.
"""

from configs import common


def get_config():
    # No metric that reads the reference either: none is kept in memory.
    return common.after_sft({"orpo": {"weight": 1.0, "lambda_": 0.1}}, {"chosen_logp": {}, "rejected_logp": {}})
