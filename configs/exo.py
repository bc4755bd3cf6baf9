"""Efficient Exact Optimization (Ji et al., 2024, arXiv 2402.00856) on lists of four with rewards after SFT.

python -m experiments.finetune --config=configs/exo.py --workdir=runs/exo

Not measured yet.
"""

from configs import common


def get_config():
    config = common.after_sft(
        {"exo": {"weight": 1.0, "beta_pi": 0.5, "beta_r": 0.5}}, {"token_nll": {"side": "responses"}}
    )
    config.data.kind = "lists"
    config.data.batch_size = 16
    return config
