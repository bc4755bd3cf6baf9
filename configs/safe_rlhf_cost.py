"""The cost model of Safe RLHF, from pairs with harm labels (Dai et al., 2023, arXiv 2310.12773).

python -m experiments.finetune --config=configs/safe_rlhf_cost.py --workdir=runs/safe_rlhf_cost

Not measured yet.
"""

from configs import common


def get_config():
    config = common.after_sft({"safe_rlhf_cost": {"weight": 1.0}}, {})
    config.data.source, config.gold.samples = "trade_offs:quality", 0
    config.model.reward_heads = 1
    return config
