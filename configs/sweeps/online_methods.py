"""Eight policy-gradient methods on the default online task, with the same number of sampled completions, three seeds.

    python -m experiments.sweep --config=configs/sweeps/online_methods.py --workdir=runs/online_methods

Every method runs as its own config says: 128 completions an iteration (16 groups of 8, for SPO 128 prompts with one
each), 60 iterations, the same learning rate and the same warm-up per seed. ReMax decodes 16 greedy completions more.
Rewards after it, means of three seeds from 0.424: SPO 0.807, NGRPO 0.781, RLOO 0.777, GRPO 0.776, Dr.GRPO 0.773,
DisCO 0.770, PPO 0.762, ReMax 0.749 (docs/online_methods.md). About 25 minutes on one core.
"""

import importlib

from configs import grpo

METHODS = ("grpo", "dr_grpo", "rloo", "remax", "ngrpo", "disco", "spo", "ppo")


def get_config():
    return grpo.get_config()


def get_sweep():
    return {
        "parameters": {"method": list(METHODS), "seed": [0, 1, 2]},
        "maximize": ["reward_after"],
        "report": ["reward_before", "zero_gradient_groups"],
        "repeat": "seed",
        "figure": {"line": "method"},
        "curves": ["eval/reward", "train/zero_gradient_groups"],
    }


def with_values(config, method, seed):
    del config  # each method has one of its own
    config = importlib.import_module(f"configs.{method}").get_config()
    config.seed = seed
    config.training.eval_every = 10
    config.checkpoints.every = config.training.iterations
    config.checkpoints.export_hugging_face = False
    return config
