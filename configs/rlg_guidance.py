"""Guidance by a tuned model (Jin et al., 2025, arXiv 2508.21016; DeRa, arXiv 2402.02992): between it and its base, and
beyond.

The two models are those of `python -m experiments.finetune --config=configs/dpo.py --workdir=runs/dpo`, whose first
stage is kept in runs/dpo/before.

python -m experiments.generate --config=configs/rlg_guidance.py --workdir=runs/rlg_guidance

Not measured yet.
"""

from configs import generate


def get_config():
    guided = {"decoder": "rlg", "base": "base", "tuned": "tuned"}
    return generate.on_corpus(
        {"base": generate.SFT, "tuned": generate.TUNED},
        {"halfway": {**guided, "scale": 0.5}, "tuned": {**guided, "scale": 1.0}, "beyond": {**guided, "scale": 2.0}},
    )
