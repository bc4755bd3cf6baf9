"""Over-optimisation of reward models (Gao et al., 2022, arXiv 2210.10760) and ensembles of them (Coste et al., 2023).

Reward models learn from few pairs, a quarter of them with the wrong label; the policy is optimised on one of them, or
on four of them combined (arXiv 2310.02743), by best-of-n and by PPO, and scored by the gold reward of the corpus.

python -m experiments.overoptimization --config=configs/overoptimization.py --workdir=runs/overoptimization

About 1,100 CPU-seconds. Measured on 2 shared cores, 2026-11-21 (docs/overoptimization.md): gold turns over before 2.5
nats of PPO in every seed; ensembles of four peak a little higher in best-of-n and turn no later.
"""

from ml_collections import ConfigDict

from configs import common, ppo

FREE = ("policy", "reward_model", "ppo", "ensembles")  # three whole configs, and names of functions


def base() -> ConfigDict:
    """Every key of `experiments.overoptimization` with its default; models of half the usual width."""
    config = ConfigDict()
    config.seeds = (0, 1, 2)  # each with pairs, flips, reward models and PPO runs of its own
    config.members = 4  # reward models of a seed: the same pairs in another order, another first head
    config.pairs = 2048  # two samples of the start each, less those of equal gold reward
    config.label_noise = 0.25
    config.evaluation_pairs = 256  # of held-out prompts, with right labels; they also standardise the members
    # name -> {combine, hyperparameters}, as in config.rewards of an online run; `single`, one member, is always there
    config.ensembles = ConfigDict(
        {
            "mean": {"combine": "ensemble_mean"},
            "wco": {"combine": "worst_case"},
            "uwo": {"combine": "uncertainty_weighted", "penalty": 0.5},
        }
    )
    config.optimised = ("single", "wco", "uwo")  # the rewards that PPO is run on
    config.best_of_n = ConfigDict()
    config.best_of_n.samples = 512  # of each held-out prompt
    config.best_of_n.largest = 256  # n = 1, 2, 4 ... up to this
    config.checkpoint_samples = 384  # of every checkpoint of a PPO run, on held-out prompts

    # The start: supervised fine-tuning. Its model, tokenizer and lengths are those of all runs.
    config.policy = common.sft()
    config.policy.model.update({"hidden_size": 64, "intermediate_size": 176, "num_layers": 2})
    config.policy.training.steps = config.policy.training.eval_every = config.policy.checkpoints.every = 450
    config.policy.gold.samples = 0
    config.policy.checkpoints.export_hugging_face = True

    config.reward_model = common.base()
    config.reward_model.objective = ConfigDict({"bt_reward_loss": {"weight": 1.0}})
    config.reward_model.metrics = ConfigDict({"reward_model_accuracy": {}})
    config.reward_model.model.reward_heads = 1
    config.reward_model.data.batch_size = 32
    config.reward_model.optimizer.learning_rate = 1e-3
    config.reward_model.training.steps = config.reward_model.training.eval_every = 160
    config.reward_model.checkpoints.every = 160
    config.reward_model.gold.samples = 0

    config.ppo = ppo.get_config()
    config.ppo.before = ConfigDict()
    config.ppo.data.source = config.ppo.data.eval_source = "corpus"
    config.ppo.data.completion_length = 48
    config.ppo.rewards = ConfigDict()  # the script's
    config.ppo.shaping.kl_shaped_rewards.beta = 0.01
    config.ppo.optimizer.learning_rate = 1e-4
    config.ppo.training.update({"iterations": 100, "minibatches": 2, "eval_every": 100})
    config.ppo.rollout.prompts = 8
    config.ppo.evaluation.samples = 1
    config.ppo.checkpoints.update({"every": 10, "keep_last": 100, "export_hugging_face": False})  # all are scored
    return config


def get_config():
    return base()


def check_numbers(config: ConfigDict) -> None:
    """ValueError for counts that are out of range or names that are not there."""
    if not config.seeds or len(set(config.seeds)) != len(config.seeds):
        raise ValueError(f"config.seeds: must be different integers, at least one, got {tuple(config.seeds)}")
    if config.members < 2:
        raise ValueError(f"config.members: an ensemble has at least 2, got {config.members}")
    for key in ("pairs", "evaluation_pairs", "checkpoint_samples"):
        if config[key] < 1:
            raise ValueError(f"config.{key}: must be at least 1, got {config[key]}")
    settings = config.best_of_n
    if not 1 <= settings.largest <= settings.samples:
        raise ValueError(
            f"config.best_of_n.largest: must lie in [1, {settings.samples}], the samples of a prompt, got "
            f"{settings.largest}"
        )
    if "single" in config.ensembles:
        raise ValueError("config.ensembles.single: the name is that of one member; choose another")
    if missing := [name for name in config.optimised if name not in ("single", *config.ensembles)]:
        raise ValueError(f"config.optimised: {missing[0]!r} is not one of {', '.join(['single', *config.ensembles])}")
    for key in ("before", "rewards"):
        if config.ppo[key]:
            raise ValueError(f"config.ppo.{key}: is decided by the script; leave it empty")
    if not config.policy.checkpoints.export_hugging_face:
        raise ValueError("config.policy.checkpoints.export_hugging_face: all runs start from what it writes; set True")
    steps, kept = config.ppo.training.iterations, config.ppo.checkpoints
    if kept.keep_last * kept.every < steps:
        raise ValueError(
            f"config.ppo.checkpoints.keep_last: {kept.keep_last} is too few, as every checkpoint is scored: one in "
            f"{kept.every} of {steps} iterations"
        )
