"""Trains a language model on its own samples: prompts, rollouts, rewards, advantages, updates.

    python -m experiments.reinforce --config=configs/grpo.py --workdir=DIR [--config.rollout.group_size=16 ...]

The same command goes on with a run that was stopped or killed. WORKDIR receives checkpoints/, metrics.jsonl,
tensorboard/, samples.jsonl (a few completions of every evaluation), curves.png, hugging_face/ and result.json.
"""

from __future__ import annotations

import functools
import importlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

import alignment.losses
import alignment.metrics
import alignment.multi_objective
import alignment.policy_gradients
from alignment import objective, statistics
from alignment.rewards import runner
from alignment.training import checkpoints, mesh, objective_gradients, optimizer, preemption, rollouts, step
from alignment.training import logging as metrics_log
from configs import common, online
from experiments import finetune, from_config, prompt_sets, sampling, several_rewards
from experiments.from_config import say

# What a rollout brings along; estimators and the objective may name it.
ROLLOUT_COLUMNS = ("valid", "ids", "group_ids", "prompt_ids", "behaviour_token_logps")
OF_THE_REWARDS = ("rewards", "labels", "correct", "answers")  # labels: the rewards, for kernels of ranked lists


def run(config: ConfigDict, workdir: Path, on_evaluation=None) -> dict[str, Any]:
    """One run from prompts to checkpoint; returns what it prints at the end. A SIGTERM saves and exits with 0."""
    common.check_keys(config, online.base(), free=online.FREE)
    online.check_numbers(config)
    if (result := finetune.finished(config, workdir, config.training.iterations)) is not None:
        report(result)
        return result
    if config.distributed or jax.process_count() > 1:
        raise ValueError("config.distributed: online runs are for one process with any number of devices")
    with preemption.StopOnSignal() as stop:
        return _run(config, workdir, stop, on_evaluation)


def make_engine(config: ConfigDict, model, tokenizer) -> rollouts.Engine:
    settings = config.rollout
    if not settings.engine:
        return rollouts.sampling_engine(
            model,
            group_size=settings.group_size,
            completion_length=config.data.completion_length,
            eos_id=tokenizer.eos_id,
            pad_id=tokenizer.pad_id,
            temperature=settings.temperature,
            top_k=settings.top_k or None,
            top_p=settings.top_p,
            min_p=settings.min_p,
        )
    module, _, name = settings.engine.partition(":")
    try:
        return getattr(importlib.import_module(module), name)(config, model, tokenizer)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"config.rollout.engine: cannot make an engine by {settings.engine!r}: {error}") from None


def _run(config: ConfigDict, workdir: Path, stop: preemption.StopOnSignal, on_evaluation) -> dict[str, Any]:
    name = "+".join(config.objective)
    finetune.check_writable(workdir)
    settings, group_size = config.rollout, config.rollout.group_size

    # --- mesh
    device_mesh = mesh.make_mesh(config.mesh)
    minibatch = settings.prompts // config.training.minibatches
    mesh.check_batch(device_mesh, minibatch, config.training.accumulate)
    mesh.check_batch(device_mesh, settings.prompts, 1)

    # --- prompts and rewards
    tokenizer = from_config.load_tokenizer(config)
    train, held_out = prompt_sets.load(config, tokenizer)
    functions, reward_weights = prompt_sets.rewards(config.rewards)
    several_rewards.check(config, [*train, *held_out], tokenizer)
    sizes = objective.SIZES | {"objectives": len(functions)}

    # --- shaping, advantages, objective
    names_before = [*ROLLOUT_COLUMNS, *OF_THE_REWARDS, "greedy_rewards", "behaviour_token_values"]
    names_before += ["demonstration_mask"] if settings.demonstrations else []
    names_before += several_rewards.columns(config, train)
    kernels = objective.union(alignment.policy_gradients, alignment.multi_objective)
    shaping = objective.bind_estimators(
        config.shaping.to_dict(), kernels, "shaping", ("rewards", "token_rewards"), names_before, sizes
    )
    shaped = objective.columns_of(shaping)
    advantages = objective.bind_estimators(
        config.advantages.to_dict(), kernels, "advantages", ("advantages", "token_advantages"),
        [*names_before, *shaped], sizes,
    )
    estimators = (*shaping, *advantages)
    given = objective.columns_of(advantages)
    columns = [*names_before, *shaped, *given, *(["token_advantages"] if "advantages" in given else [])]
    terms = objective.bind(
        config.objective.to_dict(), objective.union(alignment.losses, kernels), "objective", statistics.EACH, columns,
        sizes,
    )  # fmt: skip
    metrics = objective.bind(
        config.metrics.to_dict(), objective.union(alignment.metrics, kernels), "metrics", statistics.EACH, columns,
        sizes,
    )  # fmt: skip
    combined = config.training.gradient != "ordinary"
    terms = objective_gradients.with_memory(terms, config.training.accumulate) if combined else terms
    objective.check_accumulation(terms, config.training.accumulate)
    estimated = objective.names_of([e.term for e in estimators])
    needs = statistics.needs_of(objective.names_of((*terms, *metrics)))
    scored = statistics.needs_of([n for n in estimated if not n.startswith("behaviour_")])
    if needs.head and not config.model.reward_heads:
        raise ValueError("config.model.reward_heads: the objective reads a value head; set it to 1")
    with_greedy = "greedy_rewards" in estimated
    with_values = any(n.endswith("token_values") for n in (*estimated, *objective.names_of(terms)))
    models = needs.models | scored.models

    # --- model
    model, given_params = from_config.build_model(config, tokenizer.vocab_size)
    if config.before:
        finetune.run_before(config, workdir)
        given_params = finetune.params_before(config, workdir, model, device_mesh)
        say(f"{name}: starting from the parameters in {finetune.before_directory(config, workdir)}")
    params = from_config.initial_params(model, given_params, config.seed, device_mesh)
    if (config.reference.update_every or config.reference.soup) and "reference" not in models:
        raise ValueError("config.reference: nothing of this run asks for a reference")
    frozen_params, frozen_models, moving = {}, {}, None
    if "reference" in models:
        before = finetune.before_directory(config, workdir)
        reference = from_config.reference_params(config, before, model, params, device_mesh)
        frozen_models = {"reference": model}
        if config.reference.update_every:
            moving = reference
        else:
            frozen_params = {"reference": reference}
        del reference

    # --- optimizer and steps
    updates = config.training.iterations * config.training.epochs * config.training.minibatches
    tx, rate = optimizer.make(config.optimizer, updates)
    scoring = {"chunk_size": config.training.vocabulary_chunk or None, "temperature": settings.temperature}
    losses = step.make_losses(model, frozen_models, terms, metrics, statistics.EACH, **scoring)
    memory = objective.initial_states(terms) | objective.initial_states([e.term for e in estimators])
    train_state, abstract, shardings = from_config.initial_state(params, moving, tx, memory, config.seed, device_mesh)
    del params, moving
    make_step = functools.partial(step.make_step, losses)
    if combined:
        gradient = objective_gradients.make_gradient(losses, terms, config.training.gradient, **config.gradient_weights)
        make_step = functools.partial(step.make_update, gradient)
    train_step = jax.jit(
        make_step(
            terms, metrics, statistics.EACH, tx, accumulate=config.training.accumulate,
            reference_every=config.reference.update_every, reference_weight=config.reference.update_weight,
        ),
        out_shardings=(shardings, mesh.replicated(device_mesh)),
        donate_argnums=0,
    )  # fmt: skip

    # Ratios compare whole distributions, and the log-probs of a truncated one are not of that kind.
    truncated = bool(settings.top_k) or settings.top_p < 1 or settings.min_p > 0

    def score(params, frozen_params, batch):
        """What frozen models and the policy as it is now say of a rollout, stored beside it."""
        out = {}
        frozen = {whose: (frozen_models[whose], frozen_params[whose]) for whose in frozen_params}
        wanted = {w: frozenset({"token_logps"}) for w in frozen_models}
        policy = frozenset({"token_logps"} if settings.importance_cap or truncated else ())
        head = frozenset({"token_values"} if with_values else ())
        if not (wanted or policy or head):
            return out
        computed = statistics.compute(statistics.Needs(policy, wanted, head), model, params, frozen, batch, **scoring)
        if "reference" in wanted:
            out["reference_token_logps"] = computed["reference_token_logps"]
        if head:
            out["behaviour_token_values"] = computed["token_values"]
        if policy:
            out["behaviour_token_logps"] = computed["policy_token_logps"]
        if settings.importance_cap:  # the engine drew by other log-probs: bound what the difference amplifies
            out["importance"] = rollouts.truncated_importance_weights(
                computed["policy_token_logps"], batch["behaviour_token_logps"], batch["mask"], settings.importance_cap
            )
        return out

    @jax.jit
    def prepare(params, frozen_params, method_state, batch):
        """The rollout with everything the objective reads, and the estimators' new memory."""
        extra = score(params, frozen_params, batch)
        importance = extra.pop("importance", None)
        batch, method_state = objective.estimate(estimators, method_state, {}, batch | extra)
        if "token_advantages" not in batch and "advantages" in batch:
            batch["token_advantages"] = jnp.where(batch["mask"], batch["advantages"][..., None], 0.0)
        if importance is not None and "token_advantages" in batch:
            batch["token_advantages"] = batch["token_advantages"] * importance
        return jax.lax.stop_gradient(batch), method_state

    # --- rollouts
    engine = make_engine(config, model, tokenizer)
    evaluation_engine = rollouts.sampling_engine(
        model, group_size=config.evaluation.samples, completion_length=config.data.completion_length,
        eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id, temperature=config.evaluation.temperature,
    )  # fmt: skip
    greedy_engine = rollouts.sampling_engine(
        model, group_size=1, completion_length=config.data.completion_length, eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id, temperature=0.0,
    )  # fmt: skip

    read = (*estimated, *objective.names_of((*terms, *metrics)))
    tasks_there = sorted({p.record["task"] for p in train}) if "task_ids" in names_before else []
    preferences, several = settings.preferences, len(functions) > 1

    def rewards_of(prompts, rollout: rollouts.Rollout, count: int) -> tuple[np.ndarray, Any, list[str]]:
        texts = sampling.texts(tokenizer, rollout.tokens, rollout.mask)
        repeated = [p for p in prompts for _ in range(count)]
        got = rewarder([p.prompt for p in repeated], texts, [p.record for p in repeated])
        return got.rewards.reshape(len(prompts), count), got, texts

    def roll_out(params, prompts, rng) -> tuple[dict[str, np.ndarray], Any, dict[str, float]]:
        drawn = None
        if preferences:
            seed = np.asarray(jax.random.key_data(rng)).tolist()
            drawn = several_rewards.draw(preferences, len(prompts), len(functions), seed)
            prompts = [several_rewards.told(p, v, tokenizer) for p, v in zip(prompts, drawn, strict=True)]
        tokens, mask = rollouts.pad_prompts([p.tokens for p in prompts], config.data.prompt_length, tokenizer.pad_id)
        rollout = rollouts.check(
            engine(params, tokens, mask, rng), len(prompts), group_size, config.data.completion_length
        )
        if settings.demonstrations:
            given = [prompt_sets.demonstration(p, tokenizer) for p in prompts]
            rollout, shown = rollouts.with_demonstrations(rollout, given, group_size, settings.demonstrations)
        values, got, texts = rewards_of(prompts, rollout, group_size)
        batch = rollouts.to_rows(tokens, mask, rollout, group_size, np.array([p.id for p in prompts]))
        if settings.demonstrations:
            batch["demonstration_mask"] = shown.reshape(batch["mask"].shape)
        batch["rewards"], batch["labels"], batch["correct"] = values, values, values > 0
        batch["answers"] = np.unique([t.strip() for t in texts], return_inverse=True)[1].astype(np.int32)
        batch["answers"] = batch["answers"].reshape(values.shape)
        if with_greedy:
            greedy = greedy_engine(params, tokens, mask, rng)
            batch["greedy_rewards"] = np.repeat(rewards_of(prompts, greedy, 1)[0], group_size, axis=1)
        more, failures, logged = several_rewards.of_rollout(
            config, read, prompts, texts, got, drawn, rewarder, judge, tasks_there
        )
        return batch | more, got.report if failures is None else got.report + failures, logged

    def evaluate(params, at: int) -> tuple[dict[str, float], list[dict]]:
        values, lengths, lines, by_objective, told = [], [], [], [], None
        prompts = held_out
        if preferences:
            fan = several_rewards.fan(preferences, len(functions))
            told = fan[np.arange(len(prompts)) % len(fan)]
            prompts = [several_rewards.told(p, v, tokenizer) for p, v in zip(prompts, told, strict=True)]
        for first in range(0, len(held_out), settings.prompts):
            part = prompts[first : first + settings.prompts]
            filled = [*part, *[part[0]] * (settings.prompts - len(part))]  # one shape, one compilation
            tokens, mask = rollouts.pad_prompts([p.tokens for p in filled], config.data.prompt_length, tokenizer.pad_id)
            drawn = evaluation_engine(params, tokens, mask, jax.random.key(7))
            got, rewarded, texts = rewards_of(filled, drawn, config.evaluation.samples)
            values.append(got[: len(part)])
            by_objective.append(rewarded.by_function.reshape(*got.shape, -1)[: len(part)])
            lengths.append(drawn.mask.sum(axis=1)[: len(part) * config.evaluation.samples])
            if not lines:
                lines = [
                    {"prompt": p.prompt, "completion": texts[i * config.evaluation.samples], "reward": float(got[i, 0])}
                    for i, p in enumerate(part[:8])
                ]
        values, by_objective = np.concatenate(values), np.concatenate(by_objective)
        out = {"reward": float(values.mean()), "length": float(np.concatenate(lengths).mean())}
        if several:
            out |= {f"reward_{k}": float(by_objective[..., n].mean()) for n, k in enumerate(config.rewards)}
            names, signs = several_rewards.maximised(config)
            several_rewards.write_points(workdir, names, at, several_rewards.points(signs * by_objective, told))
        return out, lines

    # --- restore
    description = {
        "model": from_config.describe_model(model.config),
        "objective": checkpoints.as_json(
            {k: config[k].to_dict() for k in ("objective", "shaping", "advantages", "rewards", "judges")}
            | {"seed": config.seed, "prompts": settings.prompts, "group_size": group_size, "source": config.data.source}
        ),
    }
    manager = checkpoints.open_manager(
        workdir / "checkpoints", keep_last=config.checkpoints.keep_last,
        best_metric=config.checkpoints.best_metric, best_mode=config.checkpoints.best_mode,
    )  # fmt: skip
    first = manager.latest_step() or 0
    if first:
        train_state = checkpoints.restore(manager, first, checkpoints.abstract(abstract, shardings), None, description)
        say(f"{name}: going on from iteration {first} in {workdir / 'checkpoints'}")

    # --- loop
    result: dict[str, Any] = {"name": name}
    log = metrics_log.MetricsLog(workdir, first)
    progress = metrics_log.Progress(name, config.training.iterations, first, config.training.log_every)
    last_evaluation: dict[str, float] = {}
    evaluated = 0
    failures_so_far = runner.RewardReport()
    with (
        runner.RewardRunner(functions, reward_weights, **config.reward_runner.to_dict()) as rewarder,
        several_rewards.judges(config) as judge,
    ):
        try:
            if held_out and not first:
                last_evaluation, lines = evaluate(train_state.params, 0)
                log.write(0, last_evaluation, "eval")
                write_samples(workdir, 0, lines)
            for at in range(first + 1, config.training.iterations + 1):
                began = time.monotonic()
                # Everything random about an iteration follows from the seed and its number: nothing else to restore.
                key = jax.random.fold_in(jax.random.key(config.seed), at)
                order = np.random.default_rng([config.seed, at])
                kept, drawn, equal = [], 0, 0
                for round_number in range(settings.max_rounds if settings.dynamic_sampling else 1):
                    chosen = prompt_sets.next_prompts(train, settings.prompts, config.seed, at, round_number)
                    batch, failures, logged_of_rewards = roll_out(
                        train_state.params, chosen, jax.random.fold_in(key, round_number)
                    )
                    failures_so_far = failures_so_far + failures
                    alike = np.ptp(batch["rewards"], axis=1) == 0
                    drawn, equal = drawn + len(alike), equal + int(alike.sum())
                    if settings.dynamic_sampling:
                        kept.append(rollouts.take(batch, np.flatnonzero(~alike)))
                        if sum(len(b["ids"]) for b in kept) >= settings.prompts:
                            break
                        spare = rollouts.take(batch, np.flatnonzero(alike))
                    else:
                        kept.append(batch)
                whole = rollouts.join(kept)
                if missing := settings.prompts - len(whole["ids"]):
                    filler = rollouts.take(spare, np.arange(missing))
                    whole = rollouts.join([whole, filler | {"valid": np.zeros_like(filler["valid"])}])
                whole = rollouts.take(whole, np.arange(settings.prompts))
                rolled = time.monotonic()

                placed = mesh.put_batch(device_mesh, whole)
                frozen = step.with_reference(frozen_params, train_state)
                prepared, memory = prepare(train_state.params, frozen, train_state.method_state, placed)
                train_state = train_state.replace(method_state=memory)
                prepared = {k: np.asarray(v) for k, v in prepared.items()}
                for _ in range(config.training.epochs):
                    permutation = order.permutation(settings.prompts)
                    for part in np.split(permutation, config.training.minibatches):
                        rows_of_part = mesh.put_batch(device_mesh, rollouts.take(prepared, part))
                        train_state, logs = train_step(train_state, frozen_params, rows_of_part)
                if int(logs["skipped_in_a_row"]) >= config.training.max_skipped_in_a_row:
                    path = workdir / "nonfinite.json"
                    path.write_text(json.dumps({"iteration": at, "prompt_ids": whole["ids"].tolist()}, indent=1))
                    raise finetune.RunStopped(
                        f"{name} iteration {at}: loss or gradient was not finite {int(logs['skipped_in_a_row'])} steps "
                        f"in a row; the prompts' ids are in {path}"
                    )

                valid = whole["valid"]
                values = {k: float(v) for k, v in logs.items()} | logged_of_rewards
                values |= {
                    "reward": float(whole["rewards"][valid].mean()) if valid.any() else float("nan"),
                    "groups_alike": equal / drawn,
                    "completion_length": float(whole["mask"].sum(axis=-1).mean()),
                    "rewards_failed": float(failures_so_far.failed),
                    "learning_rate": float(rate(int(train_state.step) - 1)),
                    "rollout_seconds": rolled - began,
                    "update_seconds": time.monotonic() - rolled,
                }
                tokens = int(whole["mask"].sum())
                values["sampled_tokens_per_second"] = tokens / (rolled - began)
                log.write(at, values)
                progress.advance(at, tokens, values if at % config.training.log_every == 0 else None)
                stopping = stop.requested()
                if held_out and (at % config.training.eval_every == 0 or at == config.training.iterations):
                    evaluated, (last_evaluation, lines) = at, evaluate(train_state.params, at)
                    log.write(at, last_evaluation, "eval")
                    write_samples(workdir, at, lines)
                    if on_evaluation:
                        on_evaluation(at, last_evaluation)
                if at % config.checkpoints.every == 0 or at == config.training.iterations or stopping:
                    # An evaluation of an earlier iteration must not make this one the best.
                    fresh = last_evaluation if evaluated == at else None
                    checkpoints.save(manager, at, train_state, None, description, fresh)
                if stopping:
                    checkpoints.wait(manager)
                    say(f"{name}: stopped by SIGTERM at iteration {at}, checkpoint saved in {workdir / 'checkpoints'}; "
                        "run the same command again to go on")  # fmt: skip
                    raise SystemExit(0)
            checkpoints.wait(manager)
        finally:
            progress.close()
            log.close()
            manager.close()

    # --- results
    history = metrics_log.read_metrics(workdir / "metrics.jsonl")
    evaluations = [r for r in history if r["split"] == "eval"]
    result["evaluation"], result["skipped"] = last_evaluation, int(train_state.skipped)
    result["iterations"] = config.training.iterations
    if evaluations:
        result["reward_before"], result["reward_after"] = evaluations[0]["reward"], evaluations[-1]["reward"]
    result["rewards_failed"] = failures_so_far.failed
    if several and evaluations:
        result |= several_rewards.front(config, workdir)
    result["checkpoint"] = str(workdir / "checkpoints" / str(config.training.iterations))
    result["metrics"], result["curves"] = str(workdir / "metrics.jsonl"), str(workdir / "curves.png")
    metrics_log.draw_curves(history, workdir / "curves.png", name)
    if config.checkpoints.export_hugging_face and not config.model.reward_heads:
        finetune.export(
            workdir / "hugging_face", model.config, train_state.params, tokenizer, config.model.hugging_face
        )
        result["hugging_face"] = str(workdir / "hugging_face")
    finetune.store_result(config, workdir, result)
    if failures_so_far.failed:
        say(f"{name}: {failures_so_far}")
    report(result)
    return result


def write_samples(workdir: Path, at: int, lines: list[dict]) -> None:
    with (workdir / "samples.jsonl").open("a") as file:
        file.writelines(json.dumps({"iteration": at, **line}) + "\n" for line in lines)


def report(result: Mapping[str, Any]) -> None:
    say(f"\n{result['name']}: {result['iterations']} iterations, {result['skipped']} steps skipped")
    if "reward_before" in result:
        before, after = result["reward_before"], result["reward_after"]
        say(f"  mean reward on held-out prompts: {before:.3f} before, {after:.3f} after")
    for key in ("checkpoint", "metrics", "curves", "front", "hugging_face"):
        if key in result:
            say(f"  {key:13} {result[key]}")


def main(_) -> None:
    with finetune.as_command():
        run(finetune.CONFIG.value, Path(finetune.WORKDIR.value))


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
