"""Engines that a config names in `rollout.engine`: sampling restricted by an older policy, or shared with a guide.

Each takes (config, model, tokenizer) and, by keyword, what the config says in `rollout.engine_settings`; one that takes
`frozen_models` and `frozen_params` as well is given those of the run.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from alignment import statistics
from alignment.decoding import guided, sampler
from alignment.metrics import target_kl_gain
from alignment.models import decoder
from alignment.policy_gradients import nlpo_top_p, rlgf_roll_in_lengths
from alignment.training import mesh, rollouts
from alignment.training.references import model_soup
from experiments import from_config

ENGINE = "rollout.engine"  # what its memory is called, beside those of the methods
_NONE: Mapping[str, Any] = types.MappingProxyType({})
_OF_ROLL_INS = ("roll_in_lengths", "coins", "iterations")


def make(
    config: ConfigDict,
    model,
    tokenizer,
    frozen_models: Mapping[str, Any] = _NONE,
    frozen_params: Mapping[str, Any] = _NONE,
) -> rollouts.EngineWithMemory:
    """The engine of a run: the model in training itself, or what the config names.

    The run's frozen models and their parameters need be there only when the engine draws.
    """
    settings = config.rollout
    extra = settings.engine_settings.to_dict()
    if not settings.engine:
        if extra:
            raise ValueError(f"config.rollout.engine_settings.{min(extra)}: config.rollout.engine names no engine")
        return rollouts.without_memory(
            rollouts.sampling_engine(model, **drawing(config, tokenizer), **truncation(config))
        )
    module, _, name = settings.engine.partition(":")
    try:
        maker = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"config.rollout.engine: cannot make an engine by {settings.engine!r}: {error}") from None
    allowed = [p.name for p in inspect.signature(maker).parameters.values() if p.kind is p.KEYWORD_ONLY]
    given = {"frozen_models": frozen_models, "frozen_params": frozen_params}
    given = {name: value for name, value in given.items() if name in allowed}
    allowed = [name for name in allowed if name not in given]
    if unknown := sorted(set(extra) - set(allowed)):
        raise ValueError(
            f"config.rollout.engine_settings.{unknown[0]}: {settings.engine} has no such setting; it has: "
            f"{', '.join(allowed) or 'none'}"
        )
    try:
        engine = maker(config, model, tokenizer, **given, **extra)
    except ValueError as error:
        raise ValueError(f"config.rollout.engine: cannot make an engine by {settings.engine!r}: {error}") from None
    return engine if isinstance(engine, rollouts.EngineWithMemory) else rollouts.without_memory(engine)


def drawing(config: ConfigDict, tokenizer) -> dict[str, Any]:
    """How many completions, how long, at which temperature."""
    return {
        "group_size": config.rollout.group_size,
        "completion_length": config.data.completion_length,
        "eos_id": tokenizer.eos_id,
        "pad_id": tokenizer.pad_id,
        "temperature": config.rollout.temperature,
    }


def truncation(config: ConfigDict) -> dict[str, Any]:
    return {"top_k": config.rollout.top_k or None, "top_p": config.rollout.top_p, "min_p": config.rollout.min_p}


def for_sampler(settings: dict[str, Any]) -> dict[str, Any]:
    return {"max_new_tokens" if k == "completion_length" else k: v for k, v in settings.items()}


# --- NLPO ------------------------------------------------------------------------------------------------------------


def _within_nucleus(logits, *, p, always_kept, min_tokens):
    policy, older = logits["policy"], logits["mask_policy"]
    kept = nlpo_top_p(older, jnp.broadcast_to(always_kept, older.shape), p=p, min_tokens=min_tokens)
    return jnp.where(kept, policy, -jnp.inf)


def nlpo(
    config: ConfigDict, model, tokenizer, *, p: float = 0.9, min_tokens: int = 100, refresh_every: int = 20
) -> rollouts.EngineWithMemory:
    """Samples the policy within the top-p set of an older copy of itself, refreshed every so many iterations.

    The rollout says of each token from which set it was drawn (`support`), so that the log-probs of the update are
    those of the same restricted policy: neither a refresh nor a rounding can move a token out of its set. The end token
    belongs to every set. Ramamurthy et al., 2022, arXiv 2210.01241.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p must lie in [0, 1], got {p}")
    for name, value in (("min_tokens", min_tokens), ("refresh_every", refresh_every)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    combine = functools.partial(_within_nucleus, min_tokens=min_tokens)
    always_kept = np.zeros(model.config.vocab_size, bool)
    always_kept[tokenizer.eos_id] = True
    settings = for_sampler(drawing(config, tokenizer)) | truncation(config)

    def init(params):
        return {"mask_policy": jax.tree.map(jnp.copy, params), "iteration": jnp.zeros((), jnp.int32)}

    def draw(memory, params, prompts, prompt_mask, rng):
        drawn = guided.sample(
            {"policy": model, "mask_policy": model}, {"policy": params, "mask_policy": memory["mask_policy"]}, combine,
            prompts, prompt_mask, rng, settings={"p": p, "always_kept": always_kept}, with_support=True, **settings,
        )  # fmt: skip
        columns = {"support": mesh.to_host(drawn.support)}
        return rollouts.Rollout(*(mesh.to_host(x) for x in (drawn.tokens, drawn.mask, drawn.logps)), columns)

    def update(memory, params, rows):
        iteration = memory["iteration"] + 1
        refreshed = int(iteration) % refresh_every == 0
        mask_policy = jax.tree.map(jnp.copy, params) if refreshed else memory["mask_policy"]
        return {"mask_policy": mask_policy, "iteration": iteration}

    return rollouts.EngineWithMemory(init, draw, update)


# --- self-play -------------------------------------------------------------------------------------------------------


def _geometric_mixture(logits, *, mixture):
    return (1 - mixture) * logits["policy"] + mixture * logits["remembered"]


def _beside_an_opponent(config: ConfigDict, model, tokenizer, opponents: int, mixture: float, follow):
    """The last `opponents` of each group are drawn from softmax((1 - mixture) policy + mixture remembered), of logits.

    The demonstrations, if there are any (`config.rollout.demonstrations`), take the places after them. What is
    remembered begins as the model that the run starts from; `follow(remembered, params, iteration)` is what becomes of
    it after an iteration. Column `opponents`, bool [N].
    """
    group_size = config.rollout.group_size
    if not 0 <= mixture <= 1:
        raise ValueError(f"mixture must lie in [0, 1], got {mixture}")
    end = group_size - config.rollout.demonstrations
    if not 1 <= opponents <= end:
        raise ValueError(
            f"opponents must lie in [1, {end}], got {opponents} of a group of {group_size} "
            "(config.rollout.group_size), less the demonstrations"
        )
    places = np.arange(group_size)
    theirs = (end - opponents <= places) & (places < end)
    # From (the learner's, then the opponent's) to where they stand.
    order = np.argsort(np.concatenate([places[~theirs], places[theirs]]))
    settings = for_sampler(drawing(config, tokenizer)) | truncation(config)
    sizes = {"learner": group_size - opponents, "opponent": opponents}

    def init(params):
        return {"remembered": jax.tree.map(jnp.copy, params), "iteration": jnp.zeros((), jnp.int32)}

    def draw(memory, params, prompts, prompt_mask, rng):
        parts = []
        for key, (player, size) in zip(jax.random.split(rng), sizes.items(), strict=True):
            if not size:
                continue
            own = settings | {"group_size": size}
            if player == "learner":
                drawn = sampler.sample(model, params, prompts, prompt_mask, key, **own)
            elif mixture == 1:
                drawn = sampler.sample(model, memory["remembered"], prompts, prompt_mask, key, **own)
            else:
                drawn = guided.sample(
                    {"policy": model, "remembered": model}, {"policy": params, "remembered": memory["remembered"]},
                    _geometric_mixture, prompts, prompt_mask, key, settings={"mixture": np.float32(mixture)}, **own,
                )  # fmt: skip
            arrays = (drawn.tokens, drawn.mask, drawn.logps)
            parts.append([mesh.to_host(x).reshape(len(prompts), size, -1) for x in arrays])
        joined = [np.concatenate(x, axis=1)[:, order] for x in zip(*parts, strict=True)]
        flat = [x.reshape(len(prompts) * group_size, -1) for x in joined]
        return rollouts.Rollout(*flat, {"opponents": np.tile(theirs, len(prompts))})

    def update(memory, params, rows):
        iteration = memory["iteration"] + 1
        return {"remembered": follow(memory["remembered"], params, int(iteration)), "iteration": iteration}

    return rollouts.EngineWithMemory(init, draw, update, ("opponents",))


def _frozen(remembered, params, iteration):
    return remembered


def _half(config: ConfigDict, opponents: int) -> int:
    return opponents or max(config.rollout.group_size // 2, 1)


def nash_md(config: ConfigDict, model, tokenizer, *, mixture: float = 0.25, opponents: int = 0):
    """The policy, and beside it an opponent that is a mixture of the policy and the model that the run starts from.

    The mixture is taken token by token, softmax((1 - mixture) z_policy + mixture z_start): the geometric mixture of
    whole completions cannot be sampled, and this is not it (each token normalises anew), as in the paper's experiments
    and in TRL. mixture = 0 is self-play, 1 the best response to the start (and what `xpo` compares with).
    `opponents` of each group are the opponent's; 0: half. Munos et al., 2023, arXiv 2312.00886.
    """
    return _beside_an_opponent(config, model, tokenizer, _half(config, opponents), mixture, _frozen)


def nash_ema(config: ConfigDict, model, tokenizer, *, decay: float = 0.999, opponents: int = 0):
    """The policy, and beside it its moving average, which an iteration makes decay * average + (1 - decay) * new.

    decay = 0 is self-play (the policy of the last update is the one that samples), 1 an opponent that stays where the
    run began. An average of parameters is not one of policies, except where logits are linear in them.
    `opponents` as in `nash_md`. Munos et al., 2023, arXiv 2312.00886 (0.999 and 0.9995, per step there).
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must lie in [0, 1], got {decay}")

    def follow(remembered, params, iteration):
        return model_soup(params, remembered, alpha=decay)

    return _beside_an_opponent(config, model, tokenizer, _half(config, opponents), 1.0, follow)


def ipo_md(config: ConfigDict, model, tokenizer, *, mixture: float = 0.25):
    """All completions from the mixture of `nash_md`, for pairs of it. Calandriello et al., 2024, arXiv 2403.08635."""
    drawn = config.rollout.group_size - config.rollout.demonstrations
    return _beside_an_opponent(config, model, tokenizer, drawn, mixture, _frozen)


def selm(config: ConfigDict, model, tokenizer, *, opponents: int = 0, refresh_every: int = 0):
    """The policy, and beside it what it was at the last refresh: every so many iterations, or the start if 0.

    To be refreshed when the reference is (`config.reference.update_every`, in steps): the bonus of `selm` is for
    samples of the reference. `opponents` as in `nash_md`. In the paper a group is one of these and the two answers of
    the data set, `config.rollout.demonstrations`. Zhang et al., 2024, arXiv 2405.19332.
    """
    if refresh_every < 0:
        raise ValueError(f"refresh_every must be at least 0, got {refresh_every}")

    def follow(remembered, params, iteration):
        if refresh_every and iteration % refresh_every == 0:
            return jax.tree.map(jnp.copy, params)
        return remembered

    return _beside_an_opponent(config, model, tokenizer, _half(config, opponents), 1.0, follow)


# --- MiniLLM ---------------------------------------------------------------------------------------------------------


def _mixed(logits, *, share, temperature):
    """Logits whose softmax, once divided by the temperature, is the mixture of both models' at that temperature."""
    policy, teacher = (jax.nn.log_softmax(logits[name] / temperature) for name in ("policy", "teacher"))
    return temperature * jnp.logaddexp(jnp.log1p(-share) + policy, jnp.log(share) + teacher)


def teacher_mixed(
    config: ConfigDict, model, tokenizer, *, frozen_models: Mapping[str, Any], frozen_params: Mapping[str, Any],
    share: float = 0.2,
) -> rollouts.EngineWithMemory:  # fmt: skip
    """Samples each token from share * teacher + (1 - share) * policy, which keeps a weak student on sensible texts.

    The log-probs are those of the mixture: `behaviour` of `minillm`. Gu et al., 2023, arXiv 2306.08543 (share 0.2).
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie in (0, 1), got {share}")
    rollout = config.rollout
    if rollout.top_k or rollout.top_p < 1 or rollout.min_p > 0 or rollout.importance_cap:
        raise ValueError("top_k, top_p, min_p and importance_cap are for samples of the policy, not of a mixture")
    settings = for_sampler(drawing(config, tokenizer))

    def draw(params, prompts, prompt_mask, rng):
        drawn = guided.sample(
            {"policy": model, "teacher": frozen_models["teacher"]},
            {"policy": params, "teacher": frozen_params["teacher"]},
            _mixed, prompts, prompt_mask, rng,
            settings={"share": np.float32(share), "temperature": np.float32(rollout.temperature)}, **settings,
        )  # fmt: skip
        return rollouts.Rollout(*(mesh.to_host(x) for x in (drawn.tokens, drawn.mask, drawn.logps)))

    return rollouts.without_memory(draw)._replace(models=frozenset({"teacher"}))


# --- DPG -------------------------------------------------------------------------------------------------------------


def _from_a_proposal(config: ConfigDict, model, tokenizer, refresh_every: int, wanted) -> rollouts.EngineWithMemory:
    """Samples from a copy of the policy, which every so many iterations becomes the policy if that is `wanted`."""
    if refresh_every < 1:
        raise ValueError(f"refresh_every must be at least 1, got {refresh_every}")
    sample = rollouts.sampling_engine(model, **drawing(config, tokenizer), **truncation(config))

    def init(params):
        return {"proposal": jax.tree.map(jnp.copy, params), "iteration": jnp.zeros((), jnp.int32)}

    def draw(memory, params, prompts, prompt_mask, rng):
        return sample(memory["proposal"], prompts, prompt_mask, rng)

    def update(memory, params, rows):
        iteration = memory["iteration"] + 1
        refreshed = int(iteration) % refresh_every == 0 and wanted(params, rows)
        proposal = jax.tree.map(jnp.copy, params) if refreshed else memory["proposal"]
        return {"proposal": proposal, "iteration": iteration}

    return rollouts.EngineWithMemory(init, draw, update)


def older_policy(config: ConfigDict, model, tokenizer, *, refresh_every: int = 16) -> rollouts.EngineWithMemory:
    """Samples from a copy of the policy that is refreshed every so many iterations, a proposal of DPG."""
    return _from_a_proposal(config, model, tokenizer, refresh_every, lambda params, rows: True)


def nearest_policy(config: ConfigDict, model, tokenizer, *, refresh_every: int = 16) -> rollouts.EngineWithMemory:
    """The same, refreshed only if the policy is nearer to the target than the copy: KL-adaptive DPG.

    KL(p || q) - KL(p || policy) is estimated on the iteration's samples of q (`target_kl_gain`), for which
    `config.shaping` has to give `target_logps` and `log_partitions`. Khalifa et al., 2020, arXiv 2012.11635.
    """
    given = {name: (entry or {}).get("gives", name) for name, entry in config.shaping.items()}
    if missing := {"target_logps", "log_partitions"} - set(given.values()):
        raise ValueError(f"config.shaping must give {' and '.join(sorted(missing))}, to compare policies by")
    if truncation(config) != {"top_k": None, "top_p": 1.0, "min_p": 0.0}:
        raise ValueError("top_k, top_p and min_p leave out completions that the target may want")
    scoring = {"chunk_size": config.training.vocabulary_chunk or None, "temperature": config.rollout.temperature}

    @jax.jit
    def gain(params, rows):
        needed = statistics.Needs(frozenset({"token_logps"}), {}, frozenset())
        logps = statistics.compute(needed, model, params, {}, rows, **scoring)["policy_token_logps"]
        policy, proposal = (
            jnp.sum(jnp.where(rows["mask"], x, 0.0), axis=-1) for x in (logps, rows["behaviour_token_logps"])
        )
        gains = target_kl_gain(policy, proposal, rows["target_logps"], rows["log_partitions"])
        return jnp.sum(jnp.where(rows["valid"], gains, 0.0))

    def wanted(params, rows):
        return float(gain(params, mesh.put_beside(params, dict(rows)))) > 0

    return _from_a_proposal(config, model, tokenizer, refresh_every, wanted)


# --- RLGF ------------------------------------------------------------------------------------------------------------


def guide_params(directory: str, model, device_mesh) -> Any:
    """Parameters of a finished run (its WORKDIR) or of a Hugging Face directory; a guide needs no value head, and may
    have one."""
    stored = Path(directory) / "result.json"
    heads = json.loads(stored.read_text())["config"]["model"]["reward_heads"] if stored.is_file() else 0
    of_guide = decoder.build(dataclasses.replace(model.config, reward_heads=heads))
    return from_config.load_params("config.rollout.engine_settings.guide", directory, of_guide, device_mesh)


def _with_guide(config, model, tokenizer, guide, beta, guide_rolls_in) -> rollouts.EngineWithMemory:
    """A roll-in policy writes whole completions, of which beginnings are kept, and the other policy goes on from there.

    `guide_rolls_in(coin, iteration)` says which of the two begins; `beta` is {True: .., False: ..}, the probability of
    a roll-in for either case.
    """
    for value in beta.values():
        if not 0 <= value <= 1:
            raise ValueError(f"the probability of a roll-in must lie in [0, 1], got {value}")
    settings = for_sampler(drawing(config, tokenizer)) | truncation(config)
    frozen = guide_params(guide, model, mesh.make_mesh(config.mesh)) if guide else None

    def init(params):
        memory = {"iteration": jnp.zeros((), jnp.int32)}
        return memory if guide else memory | {"guide": jax.tree.map(jnp.copy, params)}

    def draw(memory, params, prompts, prompt_mask, rng):
        guide_params = frozen if guide else memory["guide"]
        keys, iteration = jax.random.split(rng, 4), int(memory["iteration"])
        coin = np.float32(jax.random.uniform(keys[0]))
        first = guide_rolls_in(float(coin), iteration)
        roll_in, roll_out = (guide_params, params) if first else (params, guide_params)
        begun = sampler.sample(model, roll_in, prompts, prompt_mask, keys[1], **settings)
        rows = len(begun.tokens)
        lengths = rlgf_roll_in_lengths(
            *jax.random.uniform(keys[2], (2, rows)), begun.mask.sum(axis=1, dtype=jnp.int32), beta=beta[first]
        )
        drawn = guided.sample(
            {"model": model}, {"model": roll_out}, sampler.only, prompts, prompt_mask, keys[3],
            given=(begun.tokens, lengths), **settings,
        )  # fmt: skip
        lengths, tokens, mask, logps = (mesh.to_host(x) for x in (lengths, drawn.tokens, drawn.mask, drawn.logps))
        logps = np.where(np.arange(mask.shape[1]) < lengths[:, None], mesh.to_host(begun.logps), logps)
        columns = {
            "roll_in_lengths": lengths.astype(np.int32),
            "coins": np.full(rows, coin, np.float32),
            "iterations": np.full(rows, iteration, np.int32),
        }
        return rollouts.Rollout(tokens, mask, logps, columns)

    def update(memory, params, rows):
        return memory | {"iteration": memory["iteration"] + 1}

    return rollouts.EngineWithMemory(init, draw, update, _OF_ROLL_INS)


def ppo_plus_plus(config: ConfigDict, model, tokenizer, *, guide: str = "", beta: float = 0.8):
    """A guide begins, the policy goes on: PPO++ of Chang et al., 2023, arXiv 2306.11816.

    `guide` is the WORKDIR of a finished run or a Hugging Face directory of the same model; "": the model that the run
    starts from. With probability `beta` a completion has a roll-in, of a length that `rlgf_roll_in_lengths` draws.
    """
    return _with_guide(config, model, tokenizer, guide, {True: beta}, lambda coin, iteration: True)


def aggrevated(config: ConfigDict, model, tokenizer, *, guide: str = "", beta: float = 0.9):
    """The policy begins, a guide goes on: AggreVaTeD of the same paper. Settings as of `ppo_plus_plus`."""
    return _with_guide(config, model, tokenizer, guide, {False: beta}, lambda coin, iteration: False)


def lols(config: ConfigDict, model, tokenizer, *, guide: str = "", beta: float = 0.8, policy_beta: float = 0.9,
         tau: float = 0.8):  # fmt: skip
    """Each rollout as PPO++ with probability `tau`, else as AggreVaTeD, whose roll-ins have `policy_beta`."""
    if not 0 <= tau <= 1:
        raise ValueError(f"tau must lie in [0, 1], got {tau}")
    betas = {True: beta, False: policy_beta}
    return _with_guide(config, model, tokenizer, guide, betas, lambda coin, iteration: coin < np.float32(tau))


def d2lols(config: ConfigDict, model, tokenizer, *, guide: str = "", beta: float = 0.8, policy_beta: float = 0.9,
           tau: int = 100):  # fmt: skip
    """AggreVaTeD for the first `tau` iterations, then PPO++."""
    if tau < 0:
        raise ValueError(f"tau must lie in [0, inf), got {tau}")
    betas = {True: beta, False: policy_beta}
    return _with_guide(config, model, tokenizer, guide, betas, lambda coin, iteration: iteration >= tau)
