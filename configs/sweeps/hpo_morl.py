"""Tuning a learner of several objectives by the hypervolume of its front (Felten et al., 2023, arXiv 2310.16487).

    python -m experiments.sweep --config=configs/sweeps/hpo_morl.py --workdir=runs/hpo_morl

The score of a configuration is the mean over the three seeds (the table's lines). It is too good for the best of them:
run the winner and the default again with seeds that the search has not used, `--config.seed=100, 101, ...`. One policy
that is told its preference makes a whole front. Not measured yet.
"""

from configs import online


def get_config():
    config = online.two_objectives(
        shaping={"preference_scalarization": {}},
        advantages={"grpo_advantages": {}},
        objective={
            "ppo": {"weight": 1.0, "reduction": "sequence_mean"},
            "kl_k3": {"weight": 0.04, "reduction": "sequence_mean"},
        },
    )
    config.rollout.preferences = "simplex"
    config.evaluation.reference_point = (0.0, -1.7)  # nothing solved, and the longest completion there is
    config.checkpoints.export_hugging_face = False
    return config


def get_sweep():
    return {
        "parameters": {"learning_rate": [3e-5, 1e-4, 3e-4], "kl_weight": [0.0, 0.04], "seed": [10, 11, 12]},
        "maximize": ["hypervolume"],
        "report": ["reward_sorting", "reward_terse"],
        "repeat": "seed",
        "figure": {"x": "learning_rate", "line": "kl_weight"},
    }


def with_values(config, learning_rate, kl_weight, seed):
    config.seed = seed
    config.optimizer.learning_rate = learning_rate
    config.objective.kl_k3.weight = kl_weight
    return config
