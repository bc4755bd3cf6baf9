"""Every key of a run of `experiments.flow` with its default."""

from ml_collections import ConfigDict

FREE = ()


def base() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.data = ConfigDict()  # Gaussians on a circle; every second one is rewarded
    config.data.modes = 8
    config.data.radius = 2.0
    config.data.spread = 0.15  # standard deviation of each
    config.model = ConfigDict()
    config.model.hidden_size = 64
    config.model.num_layers = 3
    config.model.sampler_steps = 20  # of Euler's method
    config.pretraining = ConfigDict()  # the first steps: flow matching on the data
    config.pretraining.steps = 2000
    config.pretraining.batch_size = 256
    config.pretraining.learning_rate = 2e-3

    config.rollout = ConfigDict()  # the steps after: samples, rewards, advantages, updates
    config.rollout.groups = 8
    config.rollout.group_size = 32
    config.rollout.draws = 4  # times and noises for each sample
    config.objective = ConfigDict()
    config.objective.clip = 1.0
    config.objective.largest_advantage = 5.0
    config.objective.penalty = 1.0  # weight of the squared distance to the velocities of the pre-trained model
    config.objective.time_power = 0  # w(t) = t to this power
    config.objective.learning_rate = 3e-4
    config.objective.epochs = 2  # updates on each rollout

    config.training = ConfigDict()
    config.training.steps = 2200  # pre-training included
    config.training.log_every = 50
    config.training.eval_every = 200
    config.training.checkpoint_every = 200
    return config


def check_numbers(config: ConfigDict) -> None:
    """ValueError for values that are out of range or do not fit each other."""
    for section, keys in {
        "data": ("modes",),
        "model": ("hidden_size", "num_layers", "sampler_steps"),
        "pretraining": ("steps", "batch_size"),
        "rollout": ("groups", "group_size", "draws"),
        "objective": ("epochs",),
        "training": ("steps", "log_every", "eval_every", "checkpoint_every"),
    }.items():
        for key in keys:
            if config[section][key] < 1:
                raise ValueError(f"config.{section}.{key}: must be at least 1, got {config[section][key]}")
    if config.objective.time_power not in (0, 1, 2):
        raise ValueError(f"config.objective.time_power: must be 0, 1 or 2, got {config.objective.time_power}")
    if config.training.steps <= config.pretraining.steps:
        raise ValueError(
            f"config.training.steps: {config.training.steps} must be above the {config.pretraining.steps} of "
            "config.pretraining.steps"
        )
