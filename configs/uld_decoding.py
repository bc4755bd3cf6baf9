"""ULD's logit difference (Ji et al., 2024, arXiv 2406.08607): a model without what an assistant remembers.

The two models are those of `python -m experiments.finetune --config=configs/dpo.py --workdir=runs/dpo`, whose first
stage is kept in runs/dpo/before. They stand in for a target and its assistant.

python -m experiments.generate --config=configs/uld_decoding.py --workdir=runs/uld_decoding

Not measured yet.
"""

from configs import generate


def get_config():
    return generate.on_corpus(
        {"target": generate.TUNED, "assistant": generate.SFT},
        {
            "uld": {"decoder": "uld", "target": "target", "assistant": "assistant", "alpha": 0.75},
            "uld_filtered": {"decoder": "uld_filtered", "target": "target", "assistant": "assistant", "alpha": 0.75},
        },
    )
