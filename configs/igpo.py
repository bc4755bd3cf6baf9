"""Inpainting-guided policy optimization (Zhao et al., 2025, arXiv 2509.10396): hints where all responses are wrong.

python -m experiments.diffusion --config=configs/igpo.py --workdir=runs/igpo

Not measured yet.
"""

from configs import diffusion


def get_config():
    config = diffusion.after_warm_up(
        advantages={"dr_grpo_advantages": {}},
        objective={
            "ppo": {"weight": 1.0, "reduction": "sequence_mean"},
            "kl_k3": {"weight": 0.01, "reduction": "sequence_mean"},
        },
    )
    config.before.data.accuracy = 0.1  # a model that is mostly wrong: half of the groups have no right response
    config.inpainting.largest_replaced = 0.5
    # An answer of five digits is a short trace: single digits are given, not chunks of five to ten tokens.
    config.inpainting.smallest_chunk = config.inpainting.largest_chunk = 1
    config.training.epochs = 4
    return config
