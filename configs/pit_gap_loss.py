"""The reward model of PIT (Wang et al., 2023, arXiv 2310.00898): how much better is one answer than another?

python -m experiments.make_data pit --output=runs/gaps.jsonl
python -m experiments.finetune --config=configs/pit_gap_loss.py --workdir=runs/pit_gap_loss \
    --config.data.source=runs/gaps.jsonl

Without `--config.data.source` the lists are four answers of the corpus, best first, which the loss then ranks. The
supervised stage is `configs/sft.py` on what `make_data pit --what=improvements` writes.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.reward_model({"pit_gap_loss": {"weight": 1.0}}, {})
    config.data.kind = "lists"
    config.data.batch_size = 16
    return config
