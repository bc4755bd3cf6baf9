"""Group Relative Policy Optimization (Shao et al., 2024, arXiv 2402.03300): the default online run.

python -m experiments.reinforce --config=configs/grpo.py --workdir=runs/grpo

Sorting five digits, after a warm-up on demonstrations half of which are wrong. Measured on 2026-11-21, jax 0.10.2, 60
iterations of 16 prompts x 8 completions: mean reward on 128 held-out prompts (4 samples each, temperature 1), before
and after, --config.seed=0, 1, 2: 0.463 -> 0.840, 0.375 -> 0.707, 0.377 -> 0.787. Both stages cost 110 CPU-seconds.
"""

from configs import online


def get_config():
    return online.after_warm_up(
        shaping={},
        advantages={"grpo_advantages": {}},
        objective={
            "ppo": {"weight": 1.0, "reduction": "sequence_mean"},
            "kl_k3": {"weight": 0.04, "reduction": "sequence_mean"},
        },
    )
