"""Every key of a fine-tuning run with its default; the other configs start here and say only what differs."""

import difflib
from collections.abc import Mapping

from ml_collections import ConfigDict

COMBINATIONS = ("mgda", "pcgrad", "gradient_weights")
SMOOTHERS = ("sam", "randomized_smoothing", "gradient_penalty", "curvature_penalty")
GRADIENTS = ("ordinary", "pairwise_normalized", "meta_rm", *COMBINATIONS, *SMOOTHERS)
# Sections whose keys are names of kernels, of their hyperparameters or of columns, and so are not fixed here.
FREE = ("objective", "metrics", "before", "voters", "teacher.run", "contrast.run", "data.columns", "mesh.rules")
FREE += ("data.corruption", "data.curriculum", "optimizer.multipliers")


def base() -> ConfigDict:
    """The smallest complete config: no objective yet."""
    config = ConfigDict()
    config.seed = 0
    config.distributed = False  # True: jax.distributed.initialize() first, one process per host
    config.before = ConfigDict()  # the run whose trained parameters this one starts from, a whole config but for the
    # model, mesh, seed and tokenizer, which are this one's; empty: none
    config.before_heads = 0  # reward heads that run trains, to be this one's first; further heads then start at 0
    config.before_controls = False  # whether that run trains control tokens, with which this one then begins
    config.before_workdir = ""  # where that run is kept; "": WORKDIR/before. Several runs may start from one
    config.voters = ConfigDict()  # a whole config of a reward model with several heads on the same data, trained first:
    # the mean gap of its heads on every pair is the column strength_means; empty: none

    config.data = ConfigDict()
    config.data.source = "corpus"  # corpus, recipe:NAME (what a recipe makes of the corpus), task:NAME, authors,
    # authors:SPLIT, injections, injections:clean (all generated), *.jsonl, *.parquet, a TFDS directory, tfds:NAME
    config.data.eval_source = ""  # as source; "": the corpus' test split, none for other sources
    config.data.kind = "pairs"  # completion | chat | pairs | lists | unpaired | triples | ratings | steps |
    # segments | sampled_pairs | unlearning | hierarchy | hierarchy_pairs
    config.data.split = "train"  # of TFDS
    config.data.eval_split = "test"
    config.data.columns = ConfigDict()  # field -> its name in the source, where they differ
    config.data.delimiters = ConfigDict()  # of kinds hierarchy: what stands before the messages of each role
    config.data.delimiters.system = ""
    config.data.delimiters.user = ""
    config.data.delimiters.data = ""
    config.data.delimiters.assistant = ""
    config.data.tokenizer = ""  # "": the model's directory if it has one, else bytes; "bytes"; or a directory
    config.data.prompt_length = 32
    config.data.completion_length = 48
    config.data.too_long = "error"  # error | drop | truncate; what is dropped or cut is counted and printed
    config.data.on_invalid = "error"  # error | drop, for unusable records
    config.data.packed = False  # several examples per row (completion and chat only)
    config.data.packed_length = 512
    config.data.batch_size = 64  # rows of the global batch
    config.data.corpus_size = 4096
    config.data.corpus_eval_size = 256
    config.data.difficulty = 1  # of a task's problems, 1 to 3
    config.data.label_noise = 0.0  # share of flipped labels in the corpus' training split
    # For kernels that read token_rewards: texts put before the prompt, one asking for a better answer, one for a worse.
    # The starting model scores every completion once after each; how the two differ is a token's reward.
    config.data.revision_prompts = ConfigDict()
    config.data.revision_prompts.better = ""
    config.data.revision_prompts.worse = ""
    config.data.corruption = ConfigDict()  # function of alignment.data.corruption.CORRUPTIONS -> its hyperparameters:
    # what is done to the inputs of every batch, while the targets stay; empty: nothing
    config.data.by_confidence = False  # True: two demonstrations to a row, one of the half that config.teacher's
    # checkpoints are confident of and one of the other half
    config.data.curriculum = ConfigDict()  # climb | mccl (alignment.data.curricula) -> its hyperparameters: in which
    # order examples come; empty: one permutation of all after another

    config.model = ConfigDict()
    config.model.hugging_face = ""  # a checkpoint directory; "": a new model of the sizes below
    config.model.hidden_size = 128
    config.model.intermediate_size = 352
    config.model.num_layers = 3
    config.model.num_heads = 4
    config.model.num_kv_heads = 2
    config.model.tie_word_embeddings = True
    config.model.reward_heads = 0
    config.model.output_heads = 0  # > 0: so many heads over the vocabulary, one per objective; 0: the usual one
    config.model.control_tokens = 0  # > 0: prompts begin with so many learned embeddings, each side of the data having
    # a set of its own; what is sampled begins with the first side's. config.data.prompt_length leaves room for them
    config.model.num_instruction_levels = 0  # 4: embeddings of who said a token (system, user, data, assistant), added
    # to those of the tokens (ISE), for data of kinds hierarchy; 0: none
    config.model.dtype = "float32"  # of the computation; parameters and optimizer stay float32
    config.model.remat = "none"  # none | dots | full

    config.adapter = ConfigDict()  # LoRA: low-rank adapters are trained, and the model that they stand on is frozen
    config.adapter.rank = 0  # 0: no adapters, all parameters are trained
    config.adapter.alpha = 32.0  # updates are scaled by alpha / rank
    config.adapter.targets = ("q", "k", "v", "o", "gate", "up", "down")  # the matrices that get adapters
    config.adapter.rank_stabilized = False  # scale by alpha / sqrt(rank)
    config.adapter.magnitudes = False  # also train the norm of every column (DoRA)
    config.adapter.quantize = ""  # nf4 | int8: how the frozen matrices are stored (QLoRA); "": in model.dtype

    config.guard = ConfigDict()  # AlignGuard-LoRA, a penalty on where adapters move: see training/alignment_guard.py
    config.guard.source = ""  # as data.source, of kind completion: prompts with the answers to keep; "": no penalty
    config.guard.split = "train"  # of TFDS
    config.guard.examples = 64  # the first so many; each costs a backward pass, once
    config.guard.fisher = "full"  # full | diagonal
    config.guard.mass = 0.9  # share of the Fisher mass that the guarded directions hold
    config.guard.fisher_weight = 0.25  # lam_A
    config.guard.task_weight = 0.5  # lam_T
    config.guard.collision_weight = 0.1  # lam_NC
    config.guard.alpha = 0.5  # share of the overlap in the collision term; the rest is the squared cosine
    config.guard.beta = 4.0
    config.guard.tau = 0.01

    config.objective = ConfigDict()  # kernel of alignment.losses or of alignment.policy_gradients -> {weight, side,
    # reduction, active (from, to: shares of training.steps in which the term counts), hyperparameters}
    config.metrics = ConfigDict()  # function of alignment.metrics -> the same without weight
    config.draws = ConfigDict()  # for kernels that read sampled_tokens
    config.draws.count = 256  # tokens that the policy draws at each place of a completion, anew at every step
    config.draws.temperature = 1.3
    config.precompute_reference = False  # store the reference's log-probs once instead of scoring in every step

    config.reference = ConfigDict()
    config.reference.soup = ()  # WORKDIRs of finished runs or Hugging Face directories; "BEFORE" in one is where
    # config.before ran. The reference is (1 - soup_weight) of the starting model plus soup_weight of their average;
    # empty: the start alone
    config.reference.soup_weight = 0.5
    config.reference.update_every = 0  # steps after which the reference moves towards the policy; 0: it is frozen
    config.reference.update_weight = 0.6  # share of the policy in that update; 1: the reference becomes the policy

    config.teacher = ConfigDict()  # of kernels that read teacher_...: a frozen model of the same tokenizer and any size
    config.teacher.checkpoint = ""  # WORKDIR of a finished run or a Hugging Face directory; BEFORE in it is where
    # config.before ran
    config.teacher.run = ConfigDict()  # or a whole config, trained first in WORKDIR/teacher, but for the mesh and the
    # tokenizer, which are this one's
    config.contrast = ConfigDict()  # the same of a second model, which a kernel holds the teacher against (aligndistil)
    config.contrast.checkpoint = ""
    config.contrast.run = ConfigDict()  # in WORKDIR/contrast

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"  # adamw | galore | fira (moments in a low-rank projection of each layer's gradient)
    config.optimizer.projection_rank = 8  # of galore and fira
    config.optimizer.projection_gap = 200  # steps between two projections
    config.optimizer.projection_scale = 0.25  # of the projected update
    config.optimizer.average = ""  # "" | exponential | mean: of the parameters along the run; the last step puts the
    # average in their place
    config.optimizer.average_decay = 0.99  # of exponential
    config.optimizer.average_start = 100  # of mean: the step of the first parameters in it
    config.optimizer.average_interval = 5  # and steps from one to the next
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"  # constant | cosine | linear
    config.optimizer.warmup_steps = 20
    config.optimizer.final_fraction = 0.1  # of the peak, at the last step
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.95
    config.optimizer.eps = 1e-8
    config.optimizer.weight_decay = 0.0
    config.optimizer.only = ()  # last names of the parameters that are trained, e.g. ("reward_head",); empty: all
    config.optimizer.multipliers = ConfigDict()  # last name of a parameter -> what its learning rate is multiplied by
    config.optimizer.clip_norm = 1.0  # 0: no clipping
    config.optimizer.momentum_every = 0  # > 0: after every so many steps go on along the change since the last time,
    config.optimizer.momentum_alpha = 0.3  # times this (accelerated preference optimization)

    config.training = ConfigDict()
    config.training.steps = 200
    config.training.accumulate = 1  # micro-batches per step
    config.training.vocabulary_chunk = 0  # entries per chunk of the scoring pass; 0: about 8 million logits at a time
    config.training.temperature = 1.0  # logits are divided by it before scoring
    config.training.gradient = "ordinary"  # ordinary | pairwise_normalized (both sides of a pair pull equally hard) |
    # meta_rm (taken where the rewards of the unlabelled samples lie further apart) |
    # mgda | pcgrad | gradient_weights: every term of the objective is an objective, and their gradients are combined
    # sam | randomized_smoothing | gradient_penalty | curvature_penalty: of the terms to forget, see config.smoothing
    config.training.meta_step = 1e-3  # of meta_rm: how far it moves before it looks
    config.training.features_layer = 0  # for token_features: the layer after which they are read; 0: the last, normed
    config.training.view_dropout = 0.1  # share of the weights dropped in the second pass, for second_features
    config.training.embedding_noise = 0.0  # alpha of NEFTune, noise on the embeddings in training; 0: none
    config.training.log_every = 10
    config.training.eval_every = 100
    config.training.max_skipped_in_a_row = 5  # steps with a non-finite loss or gradient before the run stops

    config.smoothing = ConfigDict()  # of training.gradient = sam and the kinds after it
    config.smoothing.rho = 0.01  # sam: radius; the penalties: their weight (10 in the paper's scripts)
    config.smoothing.mu = 0.01  # curvature_penalty: how far the second gradient is taken
    config.smoothing.sigma = 1e-4  # randomized_smoothing: deviation of the noise
    config.smoothing.draws = 3  # and how many gradients are averaged

    config.gradient_weights = ConfigDict()  # of training.gradient = "gradient_weights"
    config.gradient_weights.eta = 1e-6  # learning rate of the policy
    config.gradient_weights.mu = 1e-5  # how strongly the weights stay; goes with the squared norm of the gradients

    config.checkpoints = ConfigDict()
    config.checkpoints.every = 100
    config.checkpoints.keep_last = 1
    config.checkpoints.best_metric = ""  # an evaluation metric, e.g. "reward_accuracy"; its best step is kept too
    config.checkpoints.best_mode = "max"  # max | min
    config.checkpoints.export_hugging_face = True  # write WORKDIR/hugging_face at the end

    config.mesh = ConfigDict()
    config.mesh.data = -1  # -1: the devices that are left
    config.mesh.fsdp = 1
    config.mesh.tensor = 1
    config.mesh.rules = ConfigDict()  # parameter -> axis that splits each of its dimensions, where it is to differ from
    # RULES in alignment/training/mesh.py: {"embedding": ("fsdp", "tensor"), "lm_head": ()}

    config.diagnostics = ConfigDict()  # of pairs, on the evaluation set
    config.diagnostics.gradient_entanglement = 0  # pairs whose two gradients are compared at each evaluation; 0: off
    config.diagnostics.difficulty = False  # at the end, loss against what it takes to flip: difficulty.jsonl and .png

    config.gold = ConfigDict()  # only with the corpus as source or eval_source: samples scored by its true reward
    config.gold.samples = 512
    config.gold.prompt = "{}"  # what is sampled from, {} standing for the prompt: a policy that is conditioned on words
    # in its prompt is asked with them
    config.gold.temperature = 1.0
    return config


def sft() -> ConfigDict:
    """Supervised fine-tuning on the corpus' demonstrations, several to a row."""
    config = base()
    config.data.kind = "completion"
    config.data.packed = True
    config.data.packed_length = 256
    config.data.batch_size = 16
    config.objective = ConfigDict({"sft": {"weight": 1.0, "reduction": "token_mean"}})
    config.metrics = ConfigDict({"token_nll": {}})
    config.optimizer.learning_rate = 3e-3
    config.training.steps = 300
    config.training.eval_every = 150
    config.checkpoints.every = 150
    config.checkpoints.export_hugging_face = False
    return config


def demonstrations(recipe: str, objective: dict | None = None) -> ConfigDict:
    """`sft` on what a recipe makes of the corpus, an example to a row (packed rows have no place for weights)."""
    config = sft()
    config.data.source = f"recipe:{recipe}"
    config.data.packed = False
    config.data.batch_size = 64
    config.objective = ConfigDict(objective or {"sft": {"weight": 1.0, "reduction": "token_mean"}})
    return config


def starting_from(config: ConfigDict, before: ConfigDict) -> ConfigDict:
    """`config` made to start from the parameters that the config `before` trains."""
    for inherited in ("seed", "distributed", "model", "mesh"):  # said once, in the config of the run that follows
        del before[inherited]
    del before.data.tokenizer
    config.before = before
    return config


def taught_by(config: ConfigDict, run: ConfigDict, role: str = "teacher") -> ConfigDict:
    """`config` with a teacher (or, for the role "contrast", a second one) that the config `run` trains first."""
    for inherited in ("distributed", "mesh"):
        del run[inherited]
    del run.data.tokenizer
    config[role].run = run
    return config


def distillation(objective: dict) -> ConfigDict:
    """An objective on the corpus' demonstrations with a bigger teacher, which learns them first."""
    config = sft()
    config.objective = ConfigDict(objective)
    config.metrics.update({"kl_to_teacher": {}, "forward_kl_to_teacher": {}})
    teacher = bigger(sft())
    teacher.gold.samples = 0
    return taught_by(config, teacher)


def bigger(config: ConfigDict) -> ConfigDict:
    """The same run of a model about four times as large."""
    config.model.hidden_size, config.model.intermediate_size, config.model.num_layers = 192, 512, 6
    config.model.num_heads, config.model.num_kv_heads = 6, 2
    return config


def after_sft(objective: dict, metrics: dict) -> ConfigDict:
    """An objective that starts from the model `sft` trains; that model is also its reference."""
    config = starting_from(base(), sft())
    config.objective = ConfigDict(objective)
    config.metrics = ConfigDict(metrics)
    config.data.batch_size = 32
    # Small steps: at 1e-4 DPO drives both log-probs down until the sentences fall apart (measured: win rate 0.32).
    config.optimizer.learning_rate = 4e-5
    config.training.steps = 160
    config.training.eval_every = 40
    config.training.log_every = 5
    config.checkpoints.every = 80
    return config


def reward_model(objective: dict, metrics: dict) -> ConfigDict:
    """A reward head trained after SFT; the policy itself is not what is trained, so no samples of it are scored."""
    config = after_sft(objective, metrics)
    config.model.reward_heads = 1
    config.optimizer.learning_rate = 3e-4
    config.gold.samples = 0
    return config


def authors(split: str) -> ConfigDict:
    """Supervised fine-tuning on a split of the fictional authors, until their facts are known by heart."""
    config = sft()
    config.data.source = f"authors:{split}"
    config.data.prompt_length, config.data.completion_length = 40, 64
    config.data.corpus_size = config.data.corpus_eval_size = 80  # all questions of the forget and the retain set
    config.data.batch_size = 8  # of about 24 packed rows
    config.training.steps, config.training.eval_every, config.checkpoints.every = 300, 150, 150
    return config


def instruction_hierarchy() -> ConfigDict:
    """Supervised fine-tuning to obey the user and not what stands in the data, with instruction segment embeddings."""
    config = sft()
    config.data.source, config.data.kind = "injections", "hierarchy"
    config.data.prompt_length, config.data.completion_length = 40, 2
    config.data.corpus_size, config.data.corpus_eval_size = 32768, 256
    config.data.packed_length = 128  # eight or nine examples
    config.data.delimiters.assistant = "="
    config.model.num_instruction_levels = 4
    config.model.hidden_size, config.model.intermediate_size, config.model.num_layers = 64, 176, 2
    config.training.steps = 2000
    config.training.eval_every = config.checkpoints.every = 1000
    return config


def unlearning(objective: dict) -> ConfigDict:
    """An objective that makes a model forget some of the authors it knows; that model is also its reference."""
    config = starting_from(base(), authors("full"))
    config.objective = ConfigDict(objective)
    config.metrics = ConfigDict({f"{side}_nll": {"kernel": "token_nll", "side": side} for side in ("forget", "retain")})
    config.data.source, config.data.kind = "authors", "unlearning"
    config.data.prompt_length, config.data.completion_length = 40, 64
    config.data.corpus_size, config.data.corpus_eval_size = 480, 60
    config.data.batch_size = 10
    config.optimizer.learning_rate = 3e-4  # at 1e-3 twenty steps spoil the retain set as well
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 5
    config.training.steps, config.training.eval_every, config.checkpoints.every = 20, 20, 20  # ten epochs
    config.training.log_every = 5
    config.checkpoints.export_hugging_face = False
    return config


def preference(objective: dict) -> ConfigDict:
    """An objective on preference pairs after SFT, with the metrics that show what it does to both sides."""
    # The configs say beta 0.5, not the papers' 0.1, which lets the sentences fall apart on this small model.
    margin = {"beta": next((t["beta"] for t in objective.values() if "beta" in t), 0.1)}
    metrics = {"reward_accuracy": {}, "reward_margin": margin, "chosen_logp": {}, "rejected_logp": {}}
    return after_sft(objective, metrics)


def check_keys(config: Mapping, allowed: Mapping, path: str = "config", free: tuple[str, ...] = FREE) -> None:
    """ValueError for a key that nothing reads, or one that is missing, with the nearest that exists."""
    for key in config:
        here = f"{path}.{key}"
        if key not in allowed:
            near = difflib.get_close_matches(key, list(allowed), n=3, cutoff=0.5) or sorted(allowed)
            raise ValueError(f"{here}: unknown key; nearest: {', '.join(near)}")
        # A ConfigDict is no Mapping.
        if isinstance(allowed[key], ConfigDict) and here.removeprefix("config.") not in free:
            if not isinstance(config[key], ConfigDict):
                raise ValueError(f"{here}: is a section, got {config[key]!r}")
            check_keys(config[key], allowed[key], here, free)
    if missing := [k for k in allowed if k not in config]:
        raise ValueError(f"{path}.{missing[0]}: missing; start from base() of configs/common.py or configs/online.py")


def check_adapter(config: ConfigDict) -> None:
    """ValueError for settings that adapters do not go with; their own ranges are checked where they are made."""
    if config.before and config.before.get("adapter", {}).get("rank"):
        raise ValueError(
            "config.before.adapter.rank: a run with adapters saves only these; start from its merged model instead: "
            "config.model.hugging_face=WORKDIR/hugging_face"
        )
    if not config.adapter.rank:
        if config.adapter.quantize or config.adapter.magnitudes or config.adapter.rank_stabilized:
            raise ValueError("config.adapter.rank: 0 means no adapters, but other keys of config.adapter are set")
        return
    if config.model.num_instruction_levels:
        raise ValueError(
            "config.adapter.rank: embeddings of instruction levels are trained whole, and beside adapters they would "
            "stay as they were drawn; set config.adapter.rank or config.model.num_instruction_levels to 0"
        )
    if config.reference.update_every:
        raise ValueError("config.reference.update_every: the reference of a run with adapters is its frozen base")
    if config.reference.soup and config.adapter.quantize:
        raise ValueError("config.reference.soup: a quantised base cannot be averaged; set config.adapter.quantize=''")
    if config.model.control_tokens:
        raise ValueError("config.adapter.rank: control tokens are trained beside the model itself; set it to 0")


def check_guard(config: ConfigDict) -> None:
    """ValueError for a guard without adapters, or with numbers out of range."""
    guard = config.guard
    if not guard.source:
        return
    if not config.adapter.rank or config.adapter.magnitudes:
        raise ValueError(
            "config.guard.source: the penalty is on adapters without magnitudes; set config.adapter.rank above 0 and "
            "config.adapter.magnitudes=False"
        )
    if guard.fisher not in ("full", "diagonal"):
        raise ValueError(f"config.guard.fisher: {guard.fisher!r} is not one of full, diagonal")
    if guard.examples < 1:
        raise ValueError(f"config.guard.examples: must be at least 1, got {guard.examples}")
    for key in ("fisher_weight", "task_weight", "collision_weight", "beta"):
        if not guard[key] >= 0:
            raise ValueError(f"config.guard.{key}: must be at least 0, got {guard[key]}")
    for key in ("mass", "alpha"):
        if not 0 <= guard[key] <= 1:
            raise ValueError(f"config.guard.{key}: must lie in [0, 1], got {guard[key]}")


def check_no_average(config: ConfigDict) -> None:
    if config.optimizer.average:
        raise ValueError(
            f"config.optimizer.average: {config.optimizer.average!r} is for experiments.finetune alone"
        )


def check_gradient(config: ConfigDict, allowed: tuple[str, ...]) -> None:
    if config.training.gradient not in allowed:
        raise ValueError(f"config.training.gradient: {config.training.gradient!r} is not one of {', '.join(allowed)}")


def check_numbers(config: ConfigDict) -> None:
    """ValueError for counts that are out of range or do not fit each other."""
    check_adapter(config)
    check_guard(config)
    for key in ("steps", "accumulate", "log_every", "eval_every", "max_skipped_in_a_row"):
        if config.training[key] < 1:
            raise ValueError(f"config.training.{key}: must be at least 1, got {config.training[key]}")
    if config.checkpoints.every < 1 or config.checkpoints.keep_last < 1:
        raise ValueError("config.checkpoints: every and keep_last must be at least 1")
    if config.checkpoints.best_metric and config.checkpoints.every % config.training.eval_every:
        raise ValueError(
            f"config.checkpoints.every: {config.checkpoints.every} must be a multiple of config.training.eval_every "
            f"({config.training.eval_every}) when best_metric is set, so that every checkpoint has been evaluated"
        )
    if not 0 <= config.training.view_dropout < 1:
        raise ValueError(f"config.training.view_dropout: must lie in [0, 1), got {config.training.view_dropout}")
    if config.training.gradient == "meta_rm" and config.training.accumulate > 1:
        raise ValueError(
            f"config.training.accumulate: {config.training.accumulate} micro-batches would each take an inner step of "
            "their own; set it to 1 with config.training.gradient='meta_rm'"
        )
    if config.training.gradient in SMOOTHERS and config.training.accumulate > 1:
        raise ValueError(
            f"config.training.accumulate: {config.training.accumulate} micro-batches would each be smoothed around "
            f"gradients of their own; set it to 1 with config.training.gradient={config.training.gradient!r}"
        )
    check_gradient(config, GRADIENTS)
    for name, entry in config.objective.items():
        if entry and "active" in entry and (
            config.training.gradient != "ordinary" or config.diagnostics.gradient_entanglement
        ):
            raise ValueError(
                f"config.objective.{name}.active: training.gradient={config.training.gradient!r} and "
                f"diagnostics.gradient_entanglement={config.diagnostics.gradient_entanglement} must be 'ordinary' and "
                "0, for terms that are active in a part of the training"
            )
    if config.model.control_tokens < 0 or (config.before_controls and not config.model.control_tokens):
        raise ValueError(
            f"config.model.control_tokens: must be at least {int(config.before_controls)}, got "
            f"{config.model.control_tokens}" + (" (config.before_controls is set)" if config.before_controls else "")
        )
    exported = config.checkpoints.export_hugging_face and not config.model.reward_heads
    if config.model.num_instruction_levels and exported:
        raise ValueError(
            "config.checkpoints.export_hugging_face: no layout of transformers has a place for embeddings of "
            "instruction levels; set it to False (WORKDIR/checkpoints has them)"
        )
    if not config.training.embedding_noise >= 0:
        raise ValueError(f"config.training.embedding_noise: must be at least 0, got {config.training.embedding_noise}")
    if config.training.embedding_noise and config.training.gradient in ("pairwise_normalized", "meta_rm"):
        raise ValueError(
            "config.training.embedding_noise: the gradient "
            f"{config.training.gradient!r} has no place for noise; set it to 0"
        )
    if "{}" not in config.gold.prompt:
        raise ValueError(f"config.gold.prompt: must have {{}}, where the prompt goes, got {config.gold.prompt!r}")
    if config.draws.count < 1 or not config.draws.temperature > 0:
        raise ValueError(
            f"config.draws: count must be at least 1 and temperature above 0, got {config.draws.count} and "
            f"{config.draws.temperature}"
        )
    if config.diagnostics.gradient_entanglement < 0:
        raise ValueError(
            "config.diagnostics.gradient_entanglement: must be at least 0 (off), got "
            f"{config.diagnostics.gradient_entanglement}"
        )
    if config.reference.update_every < 0:
        raise ValueError(f"config.reference.update_every: must be at least 0, got {config.reference.update_every}")
    for key in ("soup_weight", "update_weight"):
        if not 0 <= config.reference[key] <= 1:
            raise ValueError(f"config.reference.{key}: must lie in [0, 1], got {config.reference[key]}")
    if config.reference.update_every and config.precompute_reference:
        raise ValueError(
            "config.reference.update_every: the reference changes, so log-probs stored once go stale; set "
            "config.precompute_reference=False"
        )
    if not config.objective:
        raise ValueError(
            "config.objective: empty; name at least one kernel of alignment.losses or alignment.policy_gradients"
        )
