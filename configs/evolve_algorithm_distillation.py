"""A model learns to explore from UCB's choices on many bandits (EVOLvE: Nie et al., 2024, arXiv 2410.06238).

python -m experiments.make_data algorithm_distillation --output=runs/ucb.jsonl
python -m experiments.make_data algorithm_distillation --output=runs/ucb_unseen.jsonl --seed=1 --bandits=16
python -m experiments.finetune --config=configs/evolve_algorithm_distillation.py \
    --workdir=runs/evolve_algorithm_distillation --config.data.source=runs/ucb.jsonl \
    --config.data.eval_source=runs/ucb_unseen.jsonl --config.data.completion_length=8

Without `--config.data.source` it is supervised fine-tuning on the corpus, whose completions are longer. Only the arm's
name is trained, not the rewards that the prompt tells.

Not measured yet.
"""

from configs import common


def get_config():
    config = common.sft()
    config.data.packed = False
    config.data.prompt_length = 96  # in bytes: three arms of the summary and the question; other data may need more
    config.data.batch_size = 64
    config.training.steps = 600
    config.training.eval_every = 200
    config.checkpoints.every = 200
    config.gold.samples = 0  # the corpus' gold reward knows nothing of bandits
    return config
