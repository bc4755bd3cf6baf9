"""Boundary-guided policy optimization (Lin et al., 2025, arXiv 2510.11683): 16 maskings in the memory of one.

python -m experiments.diffusion --config=configs/bgpo.py --workdir=runs/bgpo

Not measured yet.
"""

from configs import diffusion


def get_config():
    config = diffusion.after_warm_up(
        advantages={"grpo_advantages": {}},
        objective={"bgpo": {"weight": 1.0}},
    )
    config.masking.samples = 16
    return config
