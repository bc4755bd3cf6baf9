"""Contrastive decoding (Li et al., 2022, arXiv 2210.15097): what the expert finds likelier than an amateur.

The two models are those of `python -m experiments.finetune --config=configs/dpo.py --workdir=runs/dpo`, whose first
stage is kept in runs/dpo/before.

python -m experiments.generate --config=configs/contrastive_decoding.py --workdir=runs/contrastive_decoding

Not measured yet.
"""

from configs import generate


def get_config():
    return generate.on_corpus(
        {"expert": generate.TUNED, "amateur": generate.SFT},
        {"contrastive": {"decoder": "contrastive", "expert": "expert", "amateur": "amateur", "alpha": 0.1}},
    )
