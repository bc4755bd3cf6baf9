"""DPO with its diagnostics on: entangled gradients, difficulty of each pair, rankings (arXiv 2410.13828, 2405.19534).

python -m experiments.finetune --config=configs/dpo_diagnostics.py --workdir=runs/dpo_diagnostics

Not measured yet.
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
