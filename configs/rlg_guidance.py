"""Guidance by a tuned model (Jin et al., 2025, arXiv 2508.21016; DeRa, arXiv 2402.02992): between it and its base, and
beyond.

The two models are those of `python -m experiments.finetune --config=configs/dpo.py --workdir=runs/dpo`, whose first
stage is kept in runs/dpo/before.

python -m experiments.generate --config=configs/rlg_guidance.py --workdir=runs/rlg_guidance

Measured on 2026-11-22 with runs that an earlier version of the code had made (seed 0), mean gold reward of 192
outputs, 16 for each of the 12 test prompts: base -1.15, scale 0.5 -0.44, the tuned model (1) 0.10, scale 2 -0.53:
beyond the tuned model kind words come twice, which this reward calls malformed.
"""

from configs import generate


def get_config():
    guided = {"decoder": "rlg", "base": "base", "tuned": "tuned"}
    return generate.on_corpus(
        {"base": generate.SFT, "tuned": generate.TUNED},
        {"halfway": {**guided, "scale": 0.5}, "tuned": {**guided, "scale": 1.0}, "beyond": {**guided, "scale": 2.0}},
    )
