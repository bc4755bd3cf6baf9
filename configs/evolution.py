"""Every key of a run of `experiments.evolve` with its default."""

from ml_collections import ConfigDict

FREE = ()
OBJECTIVES = ("lpg", "ta_lpg", "lpo", "ta_lpo")
TASKS = ("bandit", "grid")


def base() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.objective = ConfigDict()  # what is evolved
    config.objective.name = "lpg"  # lpg | ta_lpg | lpo | ta_lpo
    config.objective.width = 16  # of its network; 256 (LPG) and 128 (LPO) in the papers
    config.objective.targets = 8  # entries of LPG's prediction; 30 in the paper

    config.task = ConfigDict()  # drawn anew for every agent
    config.task.name = "bandit"  # bandit | grid
    config.task.arms = 5
    config.task.noise = 0.5  # of a bandit's rewards
    config.task.side = 3  # of the grid

    config.agent = ConfigDict()
    config.agent.updates = 20
    config.agent.episodes = 4  # beside each other, per update
    config.agent.steps = 8  # of each; an episode that ends starts again
    config.agent.epochs = 4  # on each batch, of objectives with a ratio (LPO, PPO)
    config.agent.learning_rate = 1.0  # of an agent that follows the evolved objective
    config.agent.discount = 0.9

    config.evolution = ConfigDict()
    config.evolution.pairs = 16  # of opposite perturbations per generation
    config.evolution.tasks = 16  # per candidate, the same for all of a generation
    config.evolution.sigma = 0.1
    config.evolution.learning_rate = 0.05
    config.evolution.generations = 20  # per step

    config.evaluation = ConfigDict()
    config.evaluation.tasks = 512
    # Of the objectives it is compared with: of these learning rates, the best on other tasks is theirs.
    config.evaluation.learning_rates = (1.0, 3.0, 10.0, 30.0)

    config.training = ConfigDict()
    config.training.steps = 20
    config.training.log_every = 1
    config.training.eval_every = 10
    config.training.checkpoint_every = 10
    return config


def check_numbers(config: ConfigDict) -> None:
    """ValueError for values that are out of range."""
    for section, keys in {
        "objective": ("width", "targets"),
        "task": ("arms", "side"),
        "agent": ("updates", "episodes", "steps", "epochs"),
        "evolution": ("pairs", "tasks", "generations"),
        "evaluation": ("tasks",),
        "training": ("steps", "log_every", "eval_every", "checkpoint_every"),
    }.items():
        for key in keys:
            if config[section][key] < 1:
                raise ValueError(f"config.{section}.{key}: must be at least 1, got {config[section][key]}")
    for section, allowed in (("objective", OBJECTIVES), ("task", TASKS)):
        if config[section].name not in allowed:
            raise ValueError(f"config.{section}.name: {config[section].name!r} is not one of {', '.join(allowed)}")
    if not 0 <= config.agent.discount <= 1:
        raise ValueError(f"config.agent.discount: must lie in [0, 1], got {config.agent.discount}")
