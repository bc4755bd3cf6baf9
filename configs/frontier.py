"""Reward against KL: checkpoints of DPO and of GRPO, guidance at several scales and best-of-n, from one start.

python -m experiments.generate --config=configs/frontier.py --workdir=runs/frontier --config.data.samples=32

decodes with what these have trained:

python -m experiments.finetune --config=configs/dpo.py --workdir=runs/dpo \
    --config.checkpoints.every=20 --config.checkpoints.keep_last=100
python -m experiments.reinforce --config=configs/frontier.py:online --workdir=runs/frontier_grpo \
    --config.before_workdir=runs/dpo/before

The best possible is estimated from many samples of the start, and all of it drawn:

python -m experiments.generate --config=configs/frontier.py:pool --workdir=runs/frontier_pool
python -m experiments.frontier --runs=runs/frontier --optimum=runs/frontier_pool --output=runs/frontier.png

Measured in docs/frontier.md.
"""

from ml_collections import ConfigDict

from configs import common, generate, online

GRPO = "runs/frontier_grpo"
SCALES = {"half": 0.5, "one and a half": 1.5, "two": 2.0, "three": 3.0}  # a config's keys have no dots


def get_config(part: str = "decoders"):
    parts = {"decoders": decoders, "pool": pool, "online": online_run}
    if part not in parts:
        raise ValueError(f"configs/frontier.py:{part}: is not one of {', '.join(parts)}")
    return parts[part]()


def decoders() -> ConfigDict:
    """All that is compared, on the test prompts."""
    steps = {"dpo": (generate.TUNED, (20, 40, 80, 120, 160)), "grpo": (GRPO, (5, 10, 20, 30, 40, 60))}
    checkpoints = {f"{run}/{at}": f"{where}/checkpoints/{at}" for run, (where, ats) in steps.items() for at in ats}
    guided = {"decoder": "rlg", "base": "reference", "tuned": "tuned"}
    best = {"decoder": "best_of_n", "model": "reference", "temperature": 1.0, "top_p": 1.0}
    config = generate.on_corpus(
        {"reference": generate.SFT, "tuned": generate.TUNED, **checkpoints},
        {name: {"decoder": "sample", "model": name} for name in checkpoints}
        | {f"rlg/{name}": {**guided, "scale": scale} for name, scale in SCALES.items()}
        | {f"best of n/{n}": {**best, "n": n} for n in (2, 4, 8, 16, 32)},
    )
    config.reference, config.timing, config.data.prompts = "reference", False, 0
    return config


def pool() -> ConfigDict:
    """Many samples of the reference: what the best policy could make of it."""
    config = generate.on_corpus({"reference": generate.SFT}, {})
    config.reference, config.timing = "reference", False
    config.data.prompts, config.data.samples = 0, 512
    return config


def online_run() -> ConfigDict:
    """GRPO on the true reward from the same supervised model."""
    config = common.starting_from(online.base(), common.sft())
    config.data.source = config.data.eval_source = "corpus"
    config.data.prompt_length, config.data.completion_length = 32, 48
    config.rewards = ConfigDict({"gold": {"weight": 1.0, "function": "alignment.data.corpus:reward"}})
    config.advantages = ConfigDict({"grpo_advantages": {}})
    config.objective = ConfigDict(
        {
            "ppo": {"weight": 1.0, "reduction": "token_mean"},
            "kl_k3": {"weight": 0.05, "reduction": "token_mean"},
        }
    )
    config.metrics = ConfigDict({"sequence_kl": {}})
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 5
    config.checkpoints.every, config.checkpoints.keep_last = 5, 100
    config.checkpoints.export_hugging_face = False
    return config
