"""DPO on reward-augmented pairs (Zhang et al., 2024, arXiv 2410.08067): prompts ask for the score of the chosen answer.

python -m experiments.make_data reward_augmented_dpo --output=runs/augmented.jsonl
python -m experiments.finetune --config=configs/reward_augmented_dpo.py --workdir=runs/reward_augmented_dpo \
    --config.data.source=runs/augmented.jsonl

Without `--config.data.source` it is DPO on the corpus' own pairs. A model so trained is asked for the top score with
"[10] " before its prompt; the gold reward that a run prints asks for none, so it is off here.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.preference({"dpo": {"weight": 1.0, "beta": 0.5}})
    config.data.prompt_length = 40  # the goal takes up to five bytes
    config.gold.samples = 0
    return config
