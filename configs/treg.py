"""T-REG (Zhou et al., 2024, arXiv 2412.02685): DPO whose token rewards come from two opposite prompts, after SFT.

python -m experiments.finetune --config=configs/treg.py --workdir=runs/treg

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.411 before and 0.581 after (512 samples); mean gold reward
-1.06 -> -0.20; 1.40 nats from the start.
"""

from configs import common


def get_config():
    config = common.preference({"treg": {"weight": 1.0, "beta": 0.5, "alpha": 0.25}})
    # A model that follows instructions is asked to rewrite the answer more (less) helpfully, correctly and concisely;
    # this one only knows the words of its corpus.
    config.data.revision_prompts.better = "Be kind. "
    config.data.revision_prompts.worse = "Be rude. "
    return config
