"""DPO with its diagnostics on: entangled gradients, difficulty of each pair, rankings (arXiv 2410.13828, 2405.19534).

python -m experiments.finetune --config=configs/dpo_diagnostics.py --workdir=runs/dpo_diagnostics

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.579 after (512 samples); mean gold reward
-1.06 -> -0.21; 1.43 nats from the start.
"""

from configs import common


def get_config():
    config = common.preference({"dpo": {"weight": 1.0, "beta": 0.5}})
    config.diagnostics.gradient_entanglement = 64
    config.diagnostics.difficulty = True
    config.metrics.update(
        {
            "ranking_accuracy": {},
            "length_normalized_ranking_accuracy": {},
            "idealized_ranking_accuracy": {"beta": 0.5},
            "dpo_flip_loss": {"beta": 0.5},
            "dpo_flipped": {"beta": 0.5},
            "chosen_log_ratio": {},
            "rejected_log_ratio": {},
            "pair_mass_log_ratio": {},
        }
    )
    return config
