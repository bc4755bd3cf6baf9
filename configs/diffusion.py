"""Every key of a run of `experiments.diffusion` with its default; what it shares with `online` is said there."""

from ml_collections import ConfigDict

from configs import common, online

FREE = ("objective", "metrics", "before", "rewards", "shaping", "advantages", "data.columns", "mesh.rules")
FREE += ("optimizer.multipliers",)


def base() -> ConfigDict:
    """The smallest complete config: no objective, no advantages, no reward yet."""
    shared = online.base()
    config = ConfigDict()
    config.seed, config.distributed, config.before, config.before_workdir = 0, False, ConfigDict(), ""
    config.model, config.mesh, config.optimizer = shared.model, shared.mesh, shared.optimizer

    config.data = shared.data
    config.data.completion_length = 8  # every response has so many places; what follows its end token is filler
    config.data.prompt_length = 16
    config.data.accuracy = 0.5  # share of a task's demonstrations that are right

    config.rollout = ConfigDict()
    config.rollout.responses = "samples"  # samples | demonstrations: what is learnt from
    config.rollout.prompts = 16  # per iteration
    config.rollout.group_size = 8  # responses to each
    config.rollout.steps = 8  # of unmasking
    config.rollout.order = "random"  # random | confidence: what is shown first
    config.rollout.temperature = 1.0

    # An objective on the bound's terms (`*_elbo_terms`) sees several maskings of each response, accumulated one by one.
    # One on log-probs sees the single pass in which the whole response is hidden.
    config.masking = ConfigDict()
    config.masking.samples = 1  # of each response and epoch; only for the bound
    config.masking.draw = "count"  # count | time: what is uniform; only for the bound
    config.masking.prompt_rate = 0.0  # share of the prompt that is hidden too, drawn anew in each epoch

    config.inpainting = ConfigDict()  # for prompts whose responses are all wrong
    config.inpainting.largest_replaced = 0.0  # of a group, replaced by in-painted responses that are right; 0: off
    config.inpainting.smallest_share, config.inpainting.largest_share = 0.2, 0.6  # of the answer that is given
    config.inpainting.smallest_chunk, config.inpainting.largest_chunk = 5, 10  # tokens given together
    config.inpainting.trained_hints = 0.2  # share of the given tokens that are trained: the most uncertain ones

    config.rewards, config.reward_runner = ConfigDict(), shared.reward_runner
    config.shaping, config.advantages = ConfigDict(), ConfigDict()
    config.objective, config.metrics = ConfigDict(), ConfigDict()

    config.training = shared.training
    del config.training.accumulate  # maskings are the micro-batches
    config.checkpoints = shared.checkpoints
    del config.checkpoints.export_hugging_face  # no layout of theirs is bidirectional
    config.evaluation = shared.evaluation
    return config


def warm_up() -> ConfigDict:
    """The bound of the task's imperfect demonstrations, from scratch."""
    config = base()
    config.rollout.responses = "demonstrations"
    config.rollout.prompts, config.rollout.group_size = 128, 1
    config.data.size = 4096
    config.rewards = ConfigDict({"sorting": {"weight": 1.0}})
    config.objective = ConfigDict({"mdlm": {"weight": 1.0}})
    config.optimizer.learning_rate = 3e-3
    config.training.iterations = 600
    config.training.log_every = 20
    config.training.eval_every = config.checkpoints.every = 200
    return config


def after_warm_up(advantages: dict, objective: dict) -> ConfigDict:
    """A method on the default task, from the model of `warm_up`."""
    config = common.starting_from(base(), warm_up())
    config.rewards = ConfigDict({"sorting": {"weight": 1.0}})
    config.advantages, config.objective = ConfigDict(advantages), ConfigDict(objective)
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 5
    return config


def check_numbers(config: ConfigDict) -> None:
    """ValueError for values that are out of range or do not fit each other."""
    common.check_no_average(config)
    for section, keys in {
        "training": ("iterations", "epochs", "minibatches", "log_every", "eval_every"),
        "rollout": ("prompts", "group_size", "steps"),
        "masking": ("samples",),
        "checkpoints": ("every", "keep_last"),
        "data": ("size", "prompt_length", "completion_length"),
    }.items():
        for key in keys:
            if config[section][key] < 1:
                raise ValueError(f"config.{section}.{key}: must be at least 1, got {config[section][key]}")
    for section, key in (
        ("data", "accuracy"),
        ("masking", "prompt_rate"),
        ("inpainting", "largest_replaced"),
        ("inpainting", "trained_hints"),
        ("inpainting", "smallest_share"),
        ("inpainting", "largest_share"),
    ):
        if not 0 <= config[section][key] <= 1:
            raise ValueError(f"config.{section}.{key}: must lie in [0, 1], got {config[section][key]}")
    if config.inpainting.smallest_share > config.inpainting.largest_share:
        raise ValueError("config.inpainting.smallest_share: is above config.inpainting.largest_share")
    if config.rollout.prompts % config.training.minibatches:
        raise ValueError(
            f"config.training.minibatches: {config.training.minibatches} does not divide the {config.rollout.prompts} "
            "prompts of an iteration (config.rollout.prompts)"
        )
    for section, key, allowed in (
        ("rollout", "responses", ("samples", "demonstrations")),
        ("rollout", "order", ("random", "confidence")),
        ("masking", "draw", ("count", "time")),
    ):
        if config[section][key] not in allowed:
            raise ValueError(f"config.{section}.{key}: {config[section][key]!r} is not one of {', '.join(allowed)}")
    if config.rollout.temperature <= 0:
        raise ValueError(f"config.rollout.temperature: must be above 0, got {config.rollout.temperature}")
    for section in ("rewards", "objective"):
        if not config[section]:
            raise ValueError(f"config.{section}: empty; a run needs it")
    if config.rollout.responses == "demonstrations":
        for section in ("shaping", "advantages"):
            if config[section]:
                raise ValueError(f"config.{section}: demonstrations are not rewarded; leave it empty")
        if config.inpainting.largest_replaced:
            raise ValueError(
                "config.inpainting.largest_replaced: demonstrations have nothing to be replaced; set it to 0"
            )
    for key in ("hugging_face", "reward_heads", "control_tokens", "num_instruction_levels"):
        if config.model[key]:
            raise ValueError(
                f"config.model.{key}: there is no such thing for masked diffusion models here; leave it empty"
            )
