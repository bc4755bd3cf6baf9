"""General preference model (Zhang et al., 2024, arXiv 2410.02197): four-dimensional embeddings, preferences may cycle.

--config=configs/general_preference_model.py:general_preference_model_scaled weighs the blocks by the prompt.

python -m experiments.finetune --config=configs/general_preference_model.py --workdir=runs/general_preference_model

Not measured yet.
"""

from configs import common


def get_config(loss="general_preference_model"):
    config = common.reward_model({loss: {"weight": 1.0}}, {"general_preference_accuracy": {"blocks": 2}})
    config.model.reward_heads = 6 if loss == "general_preference_model_scaled" else 4  # two gates behind the embedding
    return config
