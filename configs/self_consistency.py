"""Self-consistency (Wang et al., 2022, arXiv 2203.11171): the most frequent of 16 answers, plain and weighted by a
score.

Sorting five digits, by the warm-up of `python -m experiments.reinforce --config=configs/grpo.py --workdir=runs/grpo`;
the weighted vote is by the task's own check, so it shows what a perfect verifier would give.

python -m experiments.generate --config=configs/self_consistency.py --workdir=runs/self_consistency

Not measured yet.
"""

from ml_collections import ConfigDict

from configs import generate


def get_config():
    config = generate.on_corpus(
        {"policy": "runs/grpo/before"},
        {
            "majority": {"decoder": "self_consistency", "model": "policy", "n": 16},
            "weighted": {"decoder": "weighted_consistency", "model": "policy", "n": 16},
        },
    )
    config.data.source, config.data.completion_length = "task:sorting", 16
    config.rewards = ConfigDict({"sorting": {"weight": 1.0}})
    return config
