"""Speculative sampling (Leviathan et al., 2022, arXiv 2211.17192): the SFT model drafts for the tuned one.

The two models are those of `python -m experiments.finetune --config=configs/dpo.py --workdir=runs/dpo`, whose first
stage is kept in runs/dpo/before.

python -m experiments.generate --config=configs/speculative_sampling.py --workdir=runs/speculative_sampling

Not measured yet.
"""

from configs import generate


def get_config():
    return generate.on_corpus(
        {"tuned": generate.TUNED, "draft": generate.SFT},
        {"speculative": {"decoder": "speculate", "target": "tuned", "draft": "draft", "proposals": 4}},
    )
