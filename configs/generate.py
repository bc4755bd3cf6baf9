"""Every key of a run of `experiments.generate` with its default, and what the configs of decoders begin with."""

from ml_collections import ConfigDict

FREE = ("models", "decoders", "rewards", "scores", "data.columns", "mesh.rules")


def base() -> ConfigDict:
    """The smallest complete config: no model and no decoder yet."""
    config = ConfigDict()
    config.seed = 0
    # name -> WORKDIR of a finished run, or a Hugging Face directory; all of one tokenizer
    config.models = ConfigDict()
    # One of config.models: outputs then say `kl`, log p(output) - log reference(output) in nats, p what they were drawn
    # from (decoders that choose among several have none, best-of-n of the reference its bound); "": none
    config.reference = ""
    # name of a column of the table -> {"decoder": function of experiments.decoders, its options}
    config.decoders = ConfigDict()

    config.data = ConfigDict()
    config.data.source = "corpus"  # corpus (its test prompts), task:NAME (generated), *.jsonl, *.parquet
    config.data.columns = ConfigDict()  # field -> its name in the source, where they differ
    config.data.prompts = 8  # the first so many of the source; 0: all (of a generated task: 128)
    config.data.samples = 1  # outputs of each prompt by each decoder
    config.data.difficulty = 2  # of a task
    config.data.prompt_length = 32
    config.data.completion_length = 48
    config.data.too_long = "error"  # error | drop, for prompts that do not fit; counted and printed

    # What outputs are worth, as in an online config: name -> {weight, function} or {weight, checkpoint, ...}
    config.rewards = ConfigDict()
    config.scores = ConfigDict()  # the same, for what best-of-n, votes and searches look for; empty: the rewards
    config.reward_runner = ConfigDict()
    config.reward_runner.workers = 0
    config.reward_runner.time_limit = 5.0
    config.reward_runner.on_failure = 0.0

    config.timing = True  # decode twice, the first time to compile, so that tokens/s is of decoding alone
    config.table_width = 36  # characters of a column of the table on the terminal
    config.mesh = ConfigDict()
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = -1, 1, 1
    config.mesh.rules = ConfigDict()
    return config


# Where the runs that the configs here decode are kept: what the commands in the docstrings of their own configs make.
SFT, TUNED, REWARD = "runs/dpo/before", "runs/dpo", "runs/bt_reward_loss"


def on_corpus(models: dict, decoders: dict, *, scores: dict | None = None) -> ConfigDict:
    """Test prompts of the corpus, and its true reward; plain samples of the first model stand in the first column."""
    config = base()
    config.models = ConfigDict(models)
    config.decoders = ConfigDict({"sampled": {"decoder": "sample", "model": next(iter(models))}, **decoders})
    config.rewards = ConfigDict({"gold": {"function": "alignment.data.corpus:reward"}})
    config.scores = ConfigDict(scores or {})
    return config


def check_numbers(config: ConfigDict) -> None:
    """ValueError for what is out of range."""
    if not config.models:
        raise ValueError("config.models: empty; name at least one run to decode from")
    if not config.decoders:
        raise ValueError("config.decoders: empty; name at least one decoder")
    for key in ("prompt_length", "completion_length"):
        if config.data[key] < 1:
            raise ValueError(f"config.data.{key}: must be at least 1, got {config.data[key]}")
    if config.data.prompts < 0:
        raise ValueError(f"config.data.prompts: must be at least 0 (all), got {config.data.prompts}")
    if config.data.samples < 1:
        raise ValueError(f"config.data.samples: must be at least 1, got {config.data.samples}")
    if config.reference and config.reference not in config.models:
        raise ValueError(
            f"config.reference: {config.reference!r} is not one of config.models: {', '.join(sorted(config.models))}"
        )
    if config.table_width < 8:
        raise ValueError(f"config.table_width: must be at least 8, got {config.table_width}")
