"""Every key of an online run (`experiments.reinforce`) with its default; what it shares with `common` is said there."""

import math

from ml_collections import ConfigDict, config_dict

from configs import common

FREE = (
    "objective", "metrics", "before", "teacher.run", "contrast.run", "rewards", "judges", "shaping", "advantages",
    "curriculum", "data.columns", "rollout.engine_settings", "mesh.rules", "optimizer.multipliers",
)  # fmt: skip
# For objectives of clipped ratios, and for those with a value head beside them.
RATIO_METRICS = {"clip_fraction": {}, "approx_kl": {}, "token_entropy": {}}
# For objectives that train towards a distribution: how far it is, and how much the samples say of it.
TARGET_METRICS = {"target_kl": {}, "target_total_variation": {}, "target_effective_sample_share": {}}
PPO_METRICS = RATIO_METRICS | {"explained_variance": {}}


def base() -> ConfigDict:
    """The smallest complete config: no objective, no advantages, no reward yet."""
    shared = common.base()
    config = ConfigDict()
    config.seed, config.distributed = 0, False
    config.before, config.before_heads, config.before_workdir = ConfigDict(), 0, ""
    config.model, config.mesh, config.optimizer = shared.model, shared.mesh, shared.optimizer
    config.reference, config.adapter = shared.reference, shared.adapter
    config.teacher, config.contrast = shared.teacher, shared.contrast

    config.data = ConfigDict()
    # task:NAME (generated, alignment.rewards.tasks), corpus and recipe:NAME (their prompts), *.jsonl, *.parquet
    config.data.source = "task:sorting"
    config.data.eval_source = ""  # as source; "": the task's test split, none for other sources
    config.data.columns = ConfigDict()  # field -> its name in the source, where they differ
    config.data.size = 2048  # of a generated task
    config.data.eval_size = 128
    config.data.difficulty = 2
    config.data.tokenizer = ""  # "": the model's directory if it has one, else bytes; "bytes"; or a directory
    config.data.prompt_length = 32
    config.data.completion_length = 16
    config.data.too_long = "error"  # error | drop, for prompts that do not fit; counted and printed

    config.rollout = ConfigDict()
    config.rollout.prompts = 16  # per iteration; a curriculum may take one of them several times
    config.rollout.group_size = 8  # completions of each
    config.rollout.temperature = 1.0
    config.rollout.top_k = 0  # 0: all
    config.rollout.top_p = 1.0
    config.rollout.min_p = 0.0
    config.rollout.demonstrations = 0  # of each group, replaced by what the prompt's record gives as `demonstration`
    # or, so many different ones, as a list `demonstrations`
    config.rollout.preferences = ""  # arc | simplex: tell each prompt a preference among the rewards; "": none
    config.rollout.dynamic_sampling = False  # draw anew for groups whose rewards are all equal: they teach nothing
    config.rollout.max_rounds = 3  # of drawing anew; then what is missing counts for nothing
    config.rollout.engine = ""  # package.module:function that makes an engine; "": the model samples itself
    config.rollout.engine_settings = ConfigDict()  # what the engine takes by keyword
    config.rollout.importance_cap = 0.0  # > 0: recompute the log-probs and weigh tokens by min(trainer / engine, cap)

    config.rollout.reveal = ""  # package.module:function (prompt, record) -> a prompt that shows the answer: the
    # demonstrations are then what the policy itself writes after it, where that is right
    config.rollout.critique = ""  # package.module:function (prompt, completion, record) -> [(start, end, 1 or -1)], the
    # good and bad stretches of a completion in characters, for kernels with `span_labels`
    config.rollout.recycle = ""  # package.module:function (prompts, records, completions of each, rewards, rng) ->
    # (prompt, record) of new tasks, which take the last `recycled` of the iteration's prompts; those that are too long
    # are passed over
    config.rollout.recycled = 0
    config.rollout.judge = ""  # rewards (Bradley-Terry: the sigmoid of their difference), or package.module:function
    # (prompt, first, second, record) -> probability that the first completion is preferred. Every group is then
    # compared, for kernels with `win_rates`: against the opponent's completions if the engine has an opponent
    config.rollout.pairs = ""  # best_and_worst | demonstration_and_sample: train on this pair of each group, by losses
    # on pairs; by win rate if there is a judge, or else by reward
    config.rollout.pair_margin = 0.0  # how far apart these must be for a pair to count; at 0 ties do as well
    config.rollout.pair_margin_of_own = config_dict.placeholder(float)  # the same where the chosen one is no
    # demonstration; None: pair_margin
    config.rollout.pair_floor = -math.inf  # what the chosen one must have at least
    config.rollout.strata = ""  # package.module:function (prompt, completion, record) -> int, for kernels with `strata`

    # Which prompts, and how many rollouts each: {name of alignment.training.curriculum: its settings}; empty: in turn
    config.curriculum = ConfigDict()

    config.value = ConfigDict()  # for objectives that read values
    config.value.model = "head"  # head: on the policy (config.model.reward_heads = 1); separate: a network of its own,
    # a copy of the policy at the start with a head, which the policy's gradients do not reach and that costs as much
    config.value.learning_rate = 0.0  # of a separate one; 0: that of config.optimizer

    # name -> {weight, function}: a task's name, or package.module:function; or {weight, checkpoint, combine, ...}: the
    # WORKDIR of a trained reward model (or several), experiments.reward_models says what goes with it. Where kernels
    # number the objectives, they stand in the alphabetical order of their names (a config keeps no other)
    config.rewards = ConfigDict()
    config.judges = ConfigDict()  # name -> {function}: package.module:function or a task's name; says true or false
    config.reward_runner = ConfigDict()
    config.reward_runner.workers = 0  # processes; 0: in this one, without a time limit
    config.reward_runner.time_limit = 5.0  # seconds for one reward
    config.reward_runner.on_failure = 0.0  # what a reward that fails is worth

    config.shaping = ConfigDict()  # function of alignment.policy_gradients -> {order, gives, hyperparameters}
    config.advantages = ConfigDict()  # the same: what turns rewards into advantages
    config.objective = ConfigDict()  # kernels of alignment.policy_gradients or alignment.losses
    config.metrics = ConfigDict()  # functions of alignment.metrics, on the rollout as it is trained on

    config.training = ConfigDict()
    config.training.iterations = 60  # rollouts
    config.training.epochs = 1  # passes over each rollout
    config.training.minibatches = 1  # optimizer steps per pass
    config.training.auxiliary = False  # the first half of an iteration's passes makes a new reference, from the old one
    # and against it, the second half the policy, from the new one and against it; both on one rollout
    config.training.accumulate = 1
    config.training.gradient = "ordinary"  # ordinary | mgda | pcgrad | gradient_weights: how terms' gradients combine
    config.training.vocabulary_chunk = 0
    config.training.log_every = 1
    config.training.eval_every = 20
    config.training.max_skipped_in_a_row = 5

    config.gradient_weights = shared.gradient_weights
    config.checkpoints = shared.checkpoints
    config.checkpoints.every = 20
    config.evaluation = ConfigDict()
    config.evaluation.temperature = 1.0  # 0: the likeliest completion
    config.evaluation.samples = 4  # completions of each held-out prompt
    config.evaluation.reference_point = ()  # of the hypervolume, one number per reward; (): the first evaluation
    return config


def warm_up() -> ConfigDict:
    """Supervised fine-tuning on the task's imperfect demonstrations."""
    config = common.sft()
    config.data.source = "task:sorting"
    config.data.prompt_length, config.data.completion_length, config.data.packed_length = 32, 16, 256
    config.data.corpus_size, config.data.difficulty = 4096, 2
    config.training.steps = config.training.eval_every = config.checkpoints.every = 150
    config.gold.samples = 0
    return config


def after_warm_up(shaping: dict, advantages: dict, objective: dict, metrics: dict | None = None) -> ConfigDict:
    """A method on the default task, from the model of `warm_up`."""
    config = common.starting_from(base(), warm_up())
    config.rewards = ConfigDict({"sorting": {"weight": 1.0}})
    config.shaping, config.advantages = ConfigDict(shaping), ConfigDict(advantages)
    config.objective, config.metrics = ConfigDict(objective), ConfigDict(metrics or {})
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 5
    return config


PPO_AND_KL = {
    "ppo": {"weight": 1.0, "reduction": "sequence_mean"},
    "kl_k3": {"weight": 0.04, "reduction": "sequence_mean"},
}


def two_objectives(shaping: dict, advantages: dict, objective: dict) -> ConfigDict:
    """`after_warm_up` with two rewards: the task solved (0 or 1), and minus a tenth of the bytes."""
    config = after_warm_up(shaping, advantages, objective)
    config.rewards = ConfigDict(
        {"sorting": {"weight": 0.5}, "terse": {"weight": 0.5, "function": "alignment.rewards.lengths:brevity"}}
    )
    return config


def on_pairs(objective: dict) -> ConfigDict:
    """A loss on pairs of fresh samples, the best and the worst of each group by the rewards as preferences."""
    config = after_warm_up({}, {}, objective, {"chosen_logp": {}, "rejected_logp": {}})
    config.rollout.judge, config.rollout.pairs = "rewards", "best_and_worst"
    return config


def in_rounds(config: ConfigDict) -> ConfigDict:
    """The same in rounds of 8 steps on 64 prompts; each round begins with the policy as its own reference."""
    config.rollout.prompts = 64
    config.training.iterations, config.training.epochs, config.training.minibatches = 16, 2, 4
    config.training.eval_every = config.checkpoints.every = 4
    config.reference.update_every, config.reference.update_weight = 8, 1.0
    return config


def on_task(config: ConfigDict, task: str) -> ConfigDict:
    """The same method on another generated task, its warm-up included."""
    config.data.source = config.before.data.source = f"task:{task}"
    config.rewards = ConfigDict({task: {"weight": 1.0}})
    return config


def check_numbers(config: ConfigDict) -> None:
    """ValueError for counts that are out of range or do not fit each other."""
    common.check_adapter(config)
    common.check_no_average(config)
    common.check_gradient(config, ("ordinary", *common.COMBINATIONS))
    for section, keys in {
        "training": ("iterations", "epochs", "minibatches", "accumulate", "log_every", "eval_every"),
        "rollout": ("prompts", "group_size", "max_rounds"),
        "checkpoints": ("every", "keep_last"),
        "data": ("size", "prompt_length", "completion_length"),
    }.items():
        for key in keys:
            if config[section][key] < 1:
                raise ValueError(f"config.{section}.{key}: must be at least 1, got {config[section][key]}")
    if config.rollout.dynamic_sampling and config.rollout.group_size < 2 and not config.curriculum:
        raise ValueError(
            "config.rollout.dynamic_sampling: a group of one is always alike; set group_size to at least 2"
        )
    if config.rollout.prompts % config.training.minibatches:
        raise ValueError(
            f"config.training.minibatches: {config.training.minibatches} does not divide the {config.rollout.prompts} "
            "prompts of an iteration (config.rollout.prompts)"
        )
    if config.training.auxiliary and config.training.epochs % 2:
        raise ValueError(
            f"config.training.epochs: {config.training.epochs} cannot be halved; config.training.auxiliary makes a "
            "reference in one half of them and the policy in the other"
        )
    if config.training.auxiliary and (config.reference.update_every or config.adapter.rank):
        key = "config.reference.update_every" if config.reference.update_every else "config.adapter.rank"
        raise ValueError(f"{key}: must be 0 with config.training.auxiliary, whose reference is trained by itself")
    steps = config.training.epochs * config.training.minibatches
    if config.reference.update_every % steps:
        raise ValueError(
            f"config.reference.update_every: {config.reference.update_every} is no multiple of the {steps} steps of an "
            "iteration (config.training.epochs x minibatches), whose rollout the reference scores once"
        )
    if config.rollout.temperature <= 0:
        raise ValueError(f"config.rollout.temperature: must be above 0, got {config.rollout.temperature}")
    if config.adapter.rank and config.value.model == "separate":
        raise ValueError("config.adapter.rank: a separate value model is trained whole; set config.value.model='head'")
    if config.model.num_instruction_levels:
        raise ValueError("config.model.num_instruction_levels: prompts do not say who speaks (experiments.finetune)")
    if config.model.output_heads:
        raise ValueError("config.model.output_heads: is of pairs with an objective each (experiments.finetune)")
    if config.model.control_tokens:
        raise ValueError("config.model.control_tokens: they are trained on pairs (experiments.finetune); set it to 0")
    if config.value.model not in ("head", "separate"):
        raise ValueError(f"config.value.model: {config.value.model!r} is not one of head, separate")
    if config.value.model == "separate" and config.model.reward_heads:
        raise ValueError("config.model.reward_heads: a separate value model has a head of its own; set it to 0")
    if config.value.model == "head" and config.value.learning_rate:
        raise ValueError("config.value.learning_rate: is of a separate value model; a head learns with the policy")
    settings = config.rollout
    if settings.reveal and not settings.demonstrations:
        raise ValueError("config.rollout.reveal: it writes demonstrations; set config.rollout.demonstrations")
    if bool(settings.recycle) != bool(settings.recycled) or not 0 <= settings.recycled < settings.prompts:
        raise ValueError(
            f"config.rollout.recycled: {settings.recycled} of {settings.prompts} prompts (config.rollout.prompts) with "
            f"config.rollout.recycle={settings.recycle!r}; set both or none, and leave prompts to recycle"
        )
    if settings.pairs not in ("", "best_and_worst", "demonstration_and_sample"):
        raise ValueError(
            f"config.rollout.pairs: {settings.pairs!r} is not one of best_and_worst, demonstration_and_sample"
        )
    if settings.pairs and settings.group_size < 2:
        raise ValueError("config.rollout.group_size: a pair needs a group of at least 2 (config.rollout.pairs)")
    if settings.pairs == "demonstration_and_sample" and not settings.demonstrations:
        raise ValueError("config.rollout.pairs: demonstration_and_sample needs config.rollout.demonstrations")
    for key, default in (("pair_margin", 0.0), ("pair_margin_of_own", None)):
        value = settings[key]
        if (value is not None and not value >= 0) or (value != default and not settings.pairs):
            raise ValueError(f"config.rollout.{key}: {value}; must be at least 0, and is of config.rollout.pairs")
    if math.isnan(settings.pair_floor) or (settings.pair_floor > -math.inf and not settings.pairs):
        raise ValueError(
            f"config.rollout.pair_floor: {settings.pair_floor}; is a number, and is of config.rollout.pairs"
        )
    if settings.recycle and (config.curriculum or settings.dynamic_sampling):
        raise ValueError("config.rollout.recycle: goes with neither a curriculum nor dynamic sampling")
    for section in ("rewards", "objective"):
        if not config[section]:
            raise ValueError(f"config.{section}: empty; an online run needs it")
