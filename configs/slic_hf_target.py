"""SLiC-HF (Zhao et al., 2023, arXiv 2305.10425) with a gold completion as its likelihood's target, as in the paper.

python -m experiments.finetune --config=configs/slic_hf_target.py --workdir=runs/slic_hf_target

Not measured yet.
"""

from configs import common


def get_config():
    # No metric that reads the reference either: none is kept in memory.
    config = common.after_sft(
        {"slic_hf_target": {"weight": 1.0, "delta": 1.0, "lambda_": 0.1}}, {"chosen_logp": {}, "rejected_logp": {}}
    )
    config.data.kind = "triples"
    return config
