"""SFT on demonstrations that a recipe selects or makes: raft, ilf, stat, phf_filtering or multilingual_ift.

python -m experiments.finetune --config=configs/demonstrations.py --workdir=runs/raft
python -m experiments.finetune --config=configs/demonstrations.py:ilf --workdir=runs/ilf

raft is Dong et al., 2023, arXiv 2304.06767; ilf Scheurer et al., 2023, arXiv 2303.16755; stat arXiv 2510.10023;
phf_filtering Korbak et al., 2023, arXiv 2302.08582. On the corpus the samples of raft are the corpus' own sentences,
and evaluators know how these are made. With a model's samples, or on files of one's own:

python -m experiments.make_data candidates --policy=runs/dpo/before --samples=8 --output=runs/candidates.jsonl
python -m experiments.make_data raft --input=runs/candidates.jsonl --output=runs/raft.jsonl
python -m experiments.finetune --config=configs/demonstrations.py --workdir=runs/raft \
    --config.data.source=runs/raft.jsonl --config.data.eval_source=corpus

Not measured yet.
"""

from configs import common


def get_config(recipe="raft"):
    config = common.starting_from(common.demonstrations(recipe), common.sft())
    config.optimizer.learning_rate = 3e-4
    config.training.steps, config.training.eval_every, config.checkpoints.every = 160, 80, 80
    if recipe == "multilingual_ift":  # its prompts are in another language
        config.gold.samples = 0
    return config
