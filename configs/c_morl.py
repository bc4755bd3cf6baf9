"""C-MORL, stage 2: one objective up, no other below nine tenths (Liu et al., 2024, arXiv 2410.02236).

python -m experiments.reinforce --config=configs/c_morl.py --workdir=runs/c_morl

Not measured yet.
"""

from configs import online


def get_config():
    config = online.two_objectives(
        shaping={"linear_scalarization": {"weights": (1.0, 0.0)}},
        advantages={"grpo_advantages": {}},
        objective={
            "ppo": {"weight": 1.0, "reduction": "sequence_mean"},
            "c_morl_barrier": {"weight": 1.0, "objective": 0, "b": 0.9, "t": 20.0, "reduction": "sequence_mean"},
        },
    )
    config.rewards.terse = {"function": "alignment.rewards.lengths:shortness"}  # above 0, as the barrier needs
    return config
