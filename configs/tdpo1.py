"""Token-level DPO, first form (Zeng et al., 2024, arXiv 2404.11999) after SFT.

python -m experiments.finetune --config=configs/tdpo1.py --workdir=runs/tdpo1

Cost after the SFT stage that configs/dpo.py shares: 110 CPU-seconds. Measured on 2 shared cores, seed 0, 2026-11-21,
evaluation: loss 0.3719, chosen_kl 1.7578, chosen_logp -8.5751, rejected_kl 1.7815, rejected_logp -11.6156,
reward_accuracy 0.8516, reward_margin 1.1733. Gold win rate against demonstrations 0.406 before, 0.630 after; mean
gold reward -1.04 before, 0.13 after; KL to the start 1.24 nats per completion.
"""

from configs import common


def get_config():
    config = common.preference({"tdpo1": {"weight": 1.0, "beta": 0.5}})
    config.metrics.chosen_kl = {"kernel": "sequence_forward_kls", "side": "chosen"}
    config.metrics.rejected_kl = {"kernel": "sequence_forward_kls", "side": "rejected"}
    return config
