"""Mixed preference optimisation (Gou and Nguyen, 2024, arXiv 2403.19443), stage 2: PPO where the reward gap is small.

After the two commands of configs/mixed_preference_optimization.py, from its policy and with it as the reference:

python -m experiments.reinforce --config=configs/mixed_preference_optimization_stage2.py --workdir=runs/mpo_stage2 \
    --config.before_workdir=runs/mpo --config.before.data.source=runs/easy.jsonl \
    --config.data.source=runs/difficult.jsonl

Without the three last keys stage 1 is run first, on all pairs of the corpus, and stage 2 takes all its prompts. The
corpus' true reward stands for the reward model that the paper trains on the pairs.

Not measured yet.
"""

from configs import mixed_preference_optimization, ppo


def get_config():
    return ppo.on_corpus(mixed_preference_optimization.get_config())
