"""SLiC-HF (Zhao et al., 2023, arXiv 2305.10425) with the chosen completion as its likelihood's target, after SFT.

python -m experiments.finetune --config=configs/slic_hf.py --workdir=runs/slic_hf

Not measured yet.
"""

from configs import common


def get_config():
    # No metric that reads the reference either: none is kept in memory.
    return common.after_sft(
        {"slic_hf": {"weight": 1.0, "delta": 1.0, "lambda_": 0.1}}, {"chosen_logp": {}, "rejected_logp": {}}
    )
