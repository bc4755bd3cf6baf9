"""MEET, first stage (Xue et al., 2023, arXiv 2310.00819): control tokens for good and for bad answers, model frozen.

python -m experiments.finetune --config=configs/meet_controls.py --workdir=runs/meet_controls

Of every pair the chosen answer is learnt after the first set of embeddings, the rejected one after the second, with
nothing else trained. configs/meet.py is the second stage, and runs this one first.

Not measured yet.
"""

from configs import common

TOKENS = 10


def objective() -> dict:
    """Mean log-likelihood loss of the good answers plus that of the bad ones."""
    good_and_bad = {"good": "chosen", "bad": "rejected"}
    return {name: {"kernel": "sft", "side": side, "reduction": "token_mean"} for name, side in good_and_bad.items()}


def get_config():
    metrics = {
        "good_nll": {"kernel": "token_nll", "side": "chosen"},
        "bad_nll": {"kernel": "token_nll", "side": "rejected"},
    }
    config = common.after_sft(objective(), metrics)
    config.model.control_tokens = TOKENS
    config.data.prompt_length += TOKENS
    config.optimizer.only = ("control_embeddings",)
    config.optimizer.learning_rate = 1e-2  # of a few vectors, far from what a model takes
    config.checkpoints.export_hugging_face = False
    return config
