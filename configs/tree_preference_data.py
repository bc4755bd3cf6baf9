"""Comparisons within trees of responses (Qiu et al., 2024, arXiv 2402.10184): partial answers take part.

python -m experiments.make_data tree_preference_data --output=runs/trees.jsonl

Then --config.data.source=runs/trees.jsonl; without it this is a reward model on independent responses.

python -m experiments.finetune --config=configs/tree_preference_data.py --workdir=runs/tree_preference_data

Not measured yet.
"""

from configs import common


def get_config():
    config = common.reward_model({"bt_reward_loss": {"weight": 1.0}}, {"reward_model_accuracy": {}})
    config.model.reward_heads = 1
    config.data.eval_source = "corpus"
    return config
