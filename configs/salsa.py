"""DPO against a soup of two supervised models, the reference of SALSA (Chegini et al., 2024, arXiv 2411.01798).

python -m experiments.finetune --config=configs/salsa.py --workdir=runs/salsa

The paper trains by PPO, as configs/salsa_ppo.py does: this is the offline counterpart, with the same reference. The
paper's two models are fine-tuned independently from the same weights. So that one command suffices, the two here follow
each other (WORKDIR/before/before, and WORKDIR/before, which goes on from it and where DPO starts); others are given by
`--config.reference.soup="('runs/other_sft',)"`.

Measured on 2026-11-22, jax 0.10.2, seed 0: gold win rate 0.413 before and 0.617 after (512 samples); mean gold reward
-0.94 -> 0.09; 1.25 nats from the start.
"""

from configs import common


def get_config():
    config = common.preference({"dpo": {"weight": 1.0, "beta": 0.5}})
    second = common.sft()
    second.training.steps = second.training.eval_every = second.checkpoints.every = 100
    second.optimizer.learning_rate = 1e-3
    common.starting_from(config, common.starting_from(second, common.sft()))
    config.reference.soup = ("BEFORE/before",)
    config.reference.soup_weight = 0.5
    return config
