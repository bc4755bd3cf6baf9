"""Identity Preference Optimization (Azar et al., 2023, arXiv 2310.12036) after SFT, summed log-probs as in the paper.

python -m experiments.finetune --config=configs/ipo.py --workdir=runs/ipo

Cost after the SFT stage that configs/dpo.py shares: 113 CPU-seconds. Measured on 2 shared cores, seed 0, 2026-11-21,
evaluation: loss 12.5055, chosen_logp -8.4123, rejected_logp -11.1972, reward_accuracy 0.8867, reward_margin 0.2091.
Gold win rate against demonstrations 0.406 before, 0.608 after; mean gold reward -1.04 before, 0.03 after.
"""

from configs import common


def get_config():
    return common.preference({"ipo": {"weight": 1.0, "tau": 0.1}})
