"""Step-level best-of-n and beam search over steps (Liu et al., 2025, arXiv 2502.07191), steps of eight tokens.

The language model is the first stage of configs/dpo.py in runs/dpo, the reward model that of
configs/bt_reward_loss.py in runs/bt_reward_loss.

python -m experiments.generate --config=configs/step_level_search.py --workdir=runs/step_level_search

Not measured yet.
"""

from configs import generate


def get_config():
    step = {"decoder": "step_search", "model": "policy", "block": 8}
    return generate.on_corpus(
        {"policy": generate.SFT},
        {"step_best_of_n": {**step, "n": 8, "beams": 1}, "step_beam": {**step, "n": 4, "beams": 2}},
        scores={"proxy": {"checkpoint": generate.REWARD}},
    )
