"""Controlled decoding (Mudgal et al., 2023, arXiv 2310.17022), token by token and block by block.

The language model is the first stage of configs/dpo.py in runs/dpo, the reward model that of
configs/bt_reward_loss.py in runs/bt_reward_loss.
A value trained for prefixes is what `alignment.losses.cd_fudge` fits.

python -m experiments.generate --config=configs/controlled_decoding.py --workdir=runs/controlled_decoding

Not measured yet.
"""

from configs import generate


def get_config():
    models = {"policy": generate.SFT, "value": generate.REWARD}
    token_wise = {"decoder": "controlled", "base": "policy", "value": "value", "candidates": 20, "strength": 1.0}
    blockwise = {"decoder": "step_search", "model": "policy", "n": 8, "beams": 1, "block": 16}
    return generate.on_corpus(
        models, {"token_wise": token_wise, "blockwise": blockwise}, scores={"value": {"checkpoint": generate.REWARD}}
    )
