"""GenARM's guided decoding (Xu et al., 2024, arXiv 2410.08193): a base model times autoregressive reward models.

The two models are those of `python -m experiments.finetune --config=configs/dpo.py --workdir=runs/dpo`, whose first
stage is kept in runs/dpo/before. The tuned one stands in for a reward model that was trained as such; several guides
and a larger base only change the names.

python -m experiments.generate --config=configs/genarm_decoding.py --workdir=runs/genarm_decoding

Measured on 2026-11-22 with runs that an earlier version of the code had made (seed 0), mean gold reward of 192
outputs, 16 for each of the 12 test prompts: base -1.15, alpha 0.5 0.21, alpha 1 0.48, the tuned model itself 0.10.
"""

from configs import generate


def get_config():
    guided = {"decoder": "genarm", "base": "base", "guides": ("arm",)}
    return generate.on_corpus(
        {"base": generate.SFT, "arm": generate.TUNED},
        {"half_guided": {**guided, "alphas": (0.5,)}, "guided": {**guided, "alphas": (1.0,)}},
    )
