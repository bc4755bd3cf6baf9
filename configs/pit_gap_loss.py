"""The reward model of PIT (Wang et al., 2023, arXiv 2310.00898): how much better is one answer than another?

python -m experiments.finetune --config=configs/pit_gap_loss.py --workdir=runs/pit_gap_loss

The lists are those of the corpus' pairs; `make_data pit --input=pairs.jsonl` makes them of other pairs. The supervised
stage and the RL are in configs/pit.py.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.reward_model({"pit_gap_loss": {"weight": 1.0}}, {})
    config.data.kind, config.data.source = "lists", "recipe:pit_gaps"
    config.data.completion_length = 2 * config.data.completion_length + 1  # two answers
    config.data.batch_size = 16
    return config
