"""GAIN-RL (Wang et al., 2025, arXiv 2506.02281): a window slides from prompts of concentrated hidden states to others.

python -m experiments.reinforce --config=configs/gain_rl.py --workdir=runs/gain_rl

The paper's epochs of 1,000 prompts and window of 1,000 ranks are scaled to the 2,048 prompts of the task. Not measured
yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"grpo_advantages": {}},
        objective={
            "ppo": {"weight": 1.0, "reduction": "sequence_mean"},
            "kl_k3": {"weight": 0.04, "reduction": "sequence_mean"},
        },
    )
    config.curriculum = {"gain_rl": {"samples_per_epoch": 256, "sigma": 256.0}}
    return config
