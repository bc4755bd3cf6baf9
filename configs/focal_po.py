"""FocalPO (Liu et al., 2025, arXiv 2501.06645) after SFT.

python -m experiments.finetune --config=configs/focal_po.py --workdir=runs/focal_po

Cost after the SFT stage that configs/dpo.py shares: 105 CPU-seconds. Measured on 2 shared cores, seed 0, 2026-11-21,
evaluation: loss 0.3750, chosen_logp -8.4660, rejected_logp -11.3252, reward_accuracy 0.8711, reward_margin 1.0827.
Gold win rate against demonstrations 0.406 before, 0.607 after; mean gold reward -1.04 before, 0.02 after; KL to the
start 1.12 nats per completion.
"""

from configs import common


def get_config():
    return common.preference({"focal_po": {"weight": 1.0, "beta": 0.5, "gamma": 0.05}})
