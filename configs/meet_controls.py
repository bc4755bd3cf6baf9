"""MEET, first stage (Xue et al., 2023, arXiv 2310.00819): control tokens for good and for bad answers, model frozen.

python -m experiments.finetune --config=configs/meet_controls.py --workdir=runs/meet_controls

Of every pair the chosen answer is learnt after the first set of embeddings, the rejected one after the second, with
nothing else trained. configs/meet.py is the second stage, and runs this one first.

Not measured yet.
"""

from configs import common

TOKENS = 10
SIDES = {"good": "chosen", "bad": "rejected"}


def objective() -> dict:
    """Mean log-likelihood loss of the good answers plus that of the bad ones."""
    return {name: {"kernel": "sft", "side": side, "reduction": "token_mean"} for name, side in SIDES.items()}


def get_config():
    nlls = {f"{name}_nll": {"kernel": "token_nll", "side": side} for name, side in SIDES.items()}
    config = common.after_sft(objective(), nlls)
    config.model.control_tokens = TOKENS
    config.data.prompt_length += TOKENS
    config.optimizer.only = ("control_embeddings",)
    config.optimizer.learning_rate = 1e-2  # of a few vectors, far from what a model takes
    config.checkpoints.export_hugging_face = False
    return config
