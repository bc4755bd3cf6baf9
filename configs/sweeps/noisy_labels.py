"""Six preference losses x three strengths x three seeds, trained on right labels and with a quarter of them flipped.

    python -m experiments.sweep --config=configs/sweeps/noisy_labels.py --workdir=runs/noisy_labels

`strength` is beta, and tau for ipo: how strongly the policy is tied to its reference. Results:
docs/noisy_labels.md. 108 trials take about an hour and a half on two cores.
"""

from ml_collections import ConfigDict

from configs import common

# One value of the others' own hyperparameters each, at both noise levels: in practice nobody knows the flip rate.
LOSSES = {
    "dpo": {},
    "cdpo": {"label_smoothing": 0.1},
    "ipo": {},
    "focal_po": {"gamma": 0.05},
    "lcpo": {"num_annotators": 4},
    "robust_dpo": {"flip_rate": 0.1},
}


def get_config():
    config = common.preference({"dpo": {"weight": 1.0, "beta": 0.5}})
    config.data.batch_size = 16  # half of the single configs': 108 trials
    config.checkpoints.export_hugging_face = False
    config.checkpoints.every = config.training.eval_every = config.training.steps
    return config


def get_sweep():
    return {
        "parameters": {
            "loss": list(LOSSES),
            "strength": [0.1, 0.3, 1.0],
            "label_noise": [0.0, 0.25],
            "seed": [0, 1, 2],
        },
        "maximize": ["win_rate_after"],
        "report": ["kl_to_start", "chosen_change", "rejected_change", "reward_accuracy"],
        "repeat": "seed",
        "figure": {"x": "strength", "line": "loss", "panel": "label_noise"},
    }


def with_values(config, loss, strength, label_noise, seed):
    config.seed = seed
    config.data.label_noise = label_noise
    strength_name = "tau" if loss == "ipo" else "beta"
    config.objective = ConfigDict({loss: {"weight": 1.0, strength_name: strength, **LOSSES[loss]}})
    config.metrics = ConfigDict(
        {
            "reward_accuracy": {},
            "chosen_change": {"kernel": "chosen_reward", "beta": 1.0},  # log pi - log ref
            "rejected_change": {"kernel": "rejected_reward", "beta": 1.0},
        }
    )
    return config
