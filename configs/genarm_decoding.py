"""GenARM's guided decoding (Xu et al., 2024, arXiv 2410.08193): a base model times autoregressive reward models.

The two models are those of `python -m experiments.finetune --config=configs/dpo.py --workdir=runs/dpo`, whose first
stage is kept in runs/dpo/before. The tuned one stands in for a reward model that was trained as such; several guides
and a larger base only change the names.

python -m experiments.generate --config=configs/genarm_decoding.py --workdir=runs/genarm_decoding

Not measured yet.
"""

from configs import generate


def get_config():
    guided = {"decoder": "genarm", "base": "base", "guides": ("arm",)}
    return generate.on_corpus(
        {"base": generate.SFT, "arm": generate.TUNED},
        {"half_guided": {**guided, "alphas": (0.5,)}, "guided": {**guided, "alphas": (1.0,)}},
    )
