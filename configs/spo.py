"""Single-stream Policy Optimization (Xu and Ding, 2025, arXiv 2509.13232): one completion a prompt, a tracked baseline.

python -m experiments.reinforce --config=configs/spo.py --workdir=runs/spo

--config.curriculum.spo.prior_samples=8 starts the tracker from so many completions of every prompt, as the paper does:
on the 2,048 prompts of the task as many as 128 iterations. Not measured yet.
"""

from configs import online


def get_config():
    config = online.after_warm_up(
        shaping={},
        advantages={"spo": {}},
        objective={
            "ppo_dual_clip": {
                "weight": 1.0, "eps_low": 0.2, "eps_high": 0.28, "dual_clip": 10.0, "reduction": "token_mean"
            },
        },
        metrics={"clip_fraction": {"eps_high": 0.28}, "approx_kl": {}},
    )  # fmt: skip
    config.rollout.prompts, config.rollout.group_size = 128, 1  # as many completions as 16 groups of 8
    config.curriculum = {"spo": {"exploration": 0.05, "prior_samples": 0}}
    return config
