"""One-token rollout (OTR; Ming et al., 2025, arXiv 2509.26313) on demonstrations, after SFT.

python -m experiments.finetune --config=configs/otr.py --workdir=runs/otr

Not measured yet.
"""

from configs import common


def get_config():
    config = common.after_sft({"otr": {"weight": 1.0, "reduction": "sequence_mean"}}, {"token_nll": {}})
    config.data.kind = "completion"
    config.draws.count, config.draws.temperature = 256, 1.3
    return config
