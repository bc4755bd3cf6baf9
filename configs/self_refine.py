"""Self-Refine (Madaan et al., 2023, arXiv 2303.17651): answer, critique, answer again; three rounds at most.

The model is the first stage of `python -m experiments.finetune --config=configs/dpo.py --workdir=runs/dpo`. A
model of this size has no critique to give: the config shows the command, with a capable model's directory to fill in.

python -m experiments.generate --config=configs/self_refine.py --workdir=runs/self_refine

Not measured yet.
"""

from configs import generate


def get_config():
    return generate.on_corpus(
        {"policy": generate.SFT}, {"self_refine": {"decoder": "self_refine", "model": "policy", "rounds": 3}}
    )
