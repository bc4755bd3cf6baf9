"""MEET, first stage (Xue et al., 2023, arXiv 2310.00819): control tokens for good and for bad answers, model frozen.

python -m experiments.finetune --config=configs/meet_controls.py --workdir=runs/meet_controls

Of every pair the chosen answer is learnt after the first set of embeddings, the rejected one after the second, with
nothing else trained. configs/meet.py is the second stage, and runs this one first.

Measured (seed 0, 160 steps, 512 prompts): after the good tokens the win rate is 0.435 and the mean gold reward -0.93,
after the bad ones 0.402 and -1.05, where the model itself has 0.411 and -1.02; one standard error of the reward is 0.1.
Ten vectors tell a frozen model of this size hardly anything.
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
