"""Trains a masked diffusion language model: on demonstrations by the bound of its likelihood, or on its own samples.

    python -m experiments.diffusion --config=configs/bgpo.py --workdir=DIR [--config.masking.samples=8 ...]

The same command goes on with a run that was stopped or killed. WORKDIR receives checkpoints/, metrics.jsonl,
tensorboard/, samples.jsonl (a few responses of every evaluation), curves.png and result.json.

The model is the decoder of the other scripts, made bidirectional, with [MASK] as one more token. What an objective
reads decides what it sees: terms of the bound (`policy_elbo_terms`) come from maskings drawn anew, a micro-batch each;
log-probs of tokens come from the one pass in which the whole response is hidden (diffu-GRPO).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import alignment.losses
import alignment.metrics
import alignment.policy_gradients
from alignment import objective, statistics
from alignment.data import formats
from alignment.decoding import unmasking
from alignment.policy_gradients import diffu_grpo_prompt_masks, igpo_hint_masks, igpo_replacements, igpo_token_mask
from alignment.rewards import runner, tasks
from alignment.training import checkpoints, maskings, mesh, optimizer, preemption, rollouts, step
from alignment.training import logging as metrics_log
from configs import common, diffusion
from experiments import (
    command,
    from_config,
    prompt_sets,
    reinforce,
    reward_models,
    sampling,
    stages,
)
from experiments.from_config import say


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """One run from prompts to checkpoint; returns what it prints at the end. A SIGTERM saves and exits with 0."""
    common.check_keys(config, diffusion.base(), free=diffusion.FREE)
    diffusion.check_numbers(config)
    if (result := stages.finished(config, workdir, config.training.iterations)) is not None:
        reinforce.report(result)
        return result
    if config.distributed or jax.process_count() > 1:
        raise ValueError("config.distributed: this script is for one process with any number of devices")
    with preemption.StopOnSignal() as stop:
        return _run(config, workdir, stop)


def demonstration_of(config: ConfigDict, prompt: prompt_sets.Prompt, tokenizer) -> list[int]:
    """Token ids with the end token; of a task, as often right as config.data.accuracy says."""
    if "task" in prompt.record:
        rng = np.random.default_rng([config.seed, prompt.id])
        return [*tokenizer.encode(tasks.demonstration(prompt.record, rng, config.data.accuracy)), tokenizer.eos_id]
    return prompt_sets.demonstration(prompt, tokenizer)


def trace_of(prompt: prompt_sets.Prompt, tokenizer) -> list[int]:
    """What in-painting may give away of a right response: the record's `trace`; a task's answer has nothing else."""
    text = prompt.record["answer"] if "task" in prompt.record else prompt.record.get("trace")
    if not isinstance(text, str):
        raise formats.DataError(f"prompt {prompt.id} ({prompt.prompt!r}): config.inpainting needs a field 'trace'")
    return tokenizer.encode(text)


def in_places(lists: list[list[int]], length: int, filler: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [N, length], filled up, and a mask of what is no filler."""
    tokens, mask = np.full((len(lists), length), filler, np.int32), np.zeros((len(lists), length), bool)
    for row, ids in enumerate(lists):
        if not 1 <= len(ids) <= length:
            raise formats.DataError(
                f"{what} has {len(ids)} tokens; allowed are 1 to {length} (config.data.completion_length)"
            )
        tokens[row, : len(ids)], mask[row, : len(ids)] = ids, True
    return tokens, mask


def up_to_end(responses: np.ndarray, eos_id: int) -> np.ndarray:
    """True up to and with the first end token of a response, everywhere if there is none."""
    ends = responses == eos_id
    return np.cumsum(ends, axis=-1) - ends == 0


def _run(config: ConfigDict, workdir: Path, stop: preemption.StopOnSignal) -> dict[str, Any]:
    name = "+".join(config.objective)
    command.check_writable(workdir)
    settings, group_size, length = config.rollout, config.rollout.group_size, config.data.completion_length
    from_samples, inpainting = settings.responses == "samples", config.inpainting

    # --- prompts and rewards
    tokenizer = from_config.load_tokenizer(config)
    train, held_out = prompt_sets.load(config, tokenizer)
    functions, reward_weights = prompt_sets.rewards(config.rewards)

    # --- shaping, advantages, objective
    kernels = alignment.policy_gradients
    columns = ["valid", "ids", "group_ids", "prompt_ids", "times"]
    if from_samples:
        columns += ["behaviour_token_logps", "rewards", "labels", "correct"]
    num_prompts = max(p.id for p in train) + 1
    shaping = objective.bind_estimators(
        objective.with_num_prompts(config.shaping.to_dict(), kernels, "shaping", num_prompts),
        kernels, "shaping", ("rewards", "token_rewards"), columns,
    )  # fmt: skip
    columns += objective.columns_of(shaping)
    advantages = objective.bind_estimators(
        objective.with_num_prompts(config.advantages.to_dict(), kernels, "advantages", num_prompts),
        kernels, "advantages", ("advantages", "token_advantages"), columns,
    )  # fmt: skip
    estimators, given = (*shaping, *advantages), objective.columns_of(advantages)
    columns += [*given, *(["token_advantages"] if "advantages" in given else [])]
    terms = objective.bind(
        config.objective.to_dict(), objective.union(alignment.losses, kernels), "objective", statistics.EACH, columns
    )
    metrics = objective.bind(
        config.metrics.to_dict(), objective.union(alignment.metrics, kernels), "metrics", statistics.EACH, columns
    )
    names = objective.names_of((*terms, *metrics))
    needs = statistics.needs_of(names)
    estimated = statistics.needs_of(objective.names_of([e.term for e in estimators]))
    if estimated.policy or estimated.models or estimated.head or needs.head or "teacher" in needs.models:
        raise ValueError("config.advantages: estimators see rewards alone here, and there is no value head or teacher")
    read = {n: statistics.parse(n) for n in names}
    of_bound = [n for n, parsed in read.items() if parsed.statistic == "elbo_terms"]
    of_tokens = [n for n, parsed in read.items() if parsed.whose in statistics.WHOSE and n not in of_bound]
    if of_bound and of_tokens:
        raise ValueError(
            f"config.objective: {of_bound[0]} is of maskings drawn anew and {of_tokens[0]} of the pass that hides the "
            "whole response; a run has one or the other"
        )
    samples = config.masking.samples if of_bound else 1
    if of_tokens and config.masking.samples != 1:
        raise ValueError("config.masking.samples: is of the bound; log-probs of tokens come from one pass: set it to 1")
    if of_bound and inpainting.largest_replaced:
        raise ValueError("config.inpainting.largest_replaced: hints are filtered token by token, the bound is not")
    objective.check_accumulation((*terms, *metrics), samples)
    objective.check_groups(estimators, terms, group_size)

    # --- mesh
    device_mesh = mesh.make_mesh(config.mesh)
    models_of_reward = reward_models.bind(config.rewards, device_mesh)
    mesh.check_batch(device_mesh, settings.prompts // config.training.minibatches, 1)

    # --- model
    model, given_params = from_config.build_model(config, tokenizer.vocab_size + 1, device_mesh, causal=False)
    rules = from_config.sharding_rules(config, model)
    mask_id = tokenizer.vocab_size
    if config.before:
        stages.run_before(config, workdir, run)
        given_params = stages.params_before(config, workdir, model, device_mesh)
        say(f"{name}: starting from the parameters in {stages.before_directory(config, workdir)}")
    params = from_config.initial_params(model, given_params, config.seed, device_mesh, rules)
    frozen_models = {"reference": model} if "reference" in needs.models else {}
    frozen_params = {whose: jax.tree.map(jnp.copy, params) for whose in frozen_models}

    # --- optimizer and steps
    updates = config.training.iterations * config.training.epochs * config.training.minibatches
    tx, rate = optimizer.make(config.optimizer, updates)
    scoring = {"chunk_size": config.training.vocabulary_chunk or None, "temperature": settings.temperature}
    losses = step.make_losses(model, frozen_models, terms, metrics, statistics.EACH, **scoring)
    memory = objective.initial_states(terms) | objective.initial_states([e.term for e in estimators])
    train_state, abstract, shardings = from_config.initial_state(
        params, None, tx, lambda params: memory, config.seed, device_mesh, rules
    )
    del params
    train_step = jax.jit(
        # One micro-batch per masking: the memory of a step is that of one, however many there are.
        step.make_step(losses, terms, metrics, statistics.EACH, tx, accumulate=samples),
        out_shardings=(shardings, mesh.replicated(device_mesh)),
        donate_argnums=0,
    )
    evaluation = jax.jit(step.make_evaluation(losses, terms, metrics, statistics.EACH))

    @jax.jit
    def prepare(method_state, batch):
        """The batch with its advantages, and the estimators' new memory."""
        batch, method_state = objective.estimate(estimators, method_state, {}, batch)
        if "token_advantages" not in batch and "advantages" in batch:
            batch["token_advantages"] = jnp.where(batch["mask"], batch["advantages"][..., None], 0.0)
        return batch, method_state

    @jax.jit
    def hide(params, frozen_params, batch, key):
        """Rows for one epoch, masking by masking beside each other, with what the sampler's own model says of them."""
        prompt_key, masking_key = jax.random.split(key)
        prompt = batch["segment_ids"][:, : config.data.prompt_length] != 0
        uniforms = jax.random.uniform(prompt_key, prompt.shape)
        prompt_hidden = diffu_grpo_prompt_masks(uniforms, prompt, rate=config.masking.prompt_rate)
        shape = batch["mask"].shape
        drawn = maskings.DRAWS[config.masking.draw](masking_key, shape, samples) if of_bound else None
        frozen = {whose: (frozen_models[whose], frozen_params[whose]) for whose in frozen_params}
        statistic = {"token_logps"} if from_samples else set()
        if inpainting.largest_replaced:
            statistic |= {"token_entropies"}
        wanted = statistics.Needs(frozenset(statistic), {w: frozenset({"token_logps"}) for w in frozen}, frozenset())

        def one(masking):
            mask = masking.hidden if of_bound else batch["mask"]
            rows = maskings.masked_rows(batch, masking.hidden, mask, mask_id, prompt_hidden)
            rows["times"] = masking.times
            if from_samples or frozen:
                said = statistics.compute(wanted, model, params, frozen, rows, **scoring)
                rows |= {"behaviour_token_logps": said["policy_token_logps"]} if from_samples else {}
                rows |= {f"{w}_token_logps": said[f"{w}_token_logps"] for w in frozen}
                if inpainting.largest_replaced:
                    rows["mask"] = igpo_token_mask(
                        said["policy_token_entropies"], batch["hint_mask"], mask, tau=inpainting.trained_hints
                    )
            return rows

        rows = jax.lax.map(one, drawn or maskings.everything(shape))
        return jax.lax.stop_gradient({k: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]) for k, x in rows.items()})

    # --- responses
    def respond(params, prompts, rng, count: int, temperature: float, **hints) -> np.ndarray:
        tokens, mask = rollouts.pad_prompts([p.tokens for p in prompts], config.data.prompt_length, tokenizer.pad_id)
        drawn = unmasking.sample(
            model, params, tokens, mask, rng, length=length, steps=settings.steps, group_size=count,
            temperature=temperature, order=settings.order, **hints,
        )  # fmt: skip
        return np.asarray(drawn)

    def rewards_of(prompts, responses: np.ndarray, count: int) -> tuple[np.ndarray, Any, list[str]]:
        texts = sampling.texts(tokenizer, responses, up_to_end(responses, tokenizer.eos_id))
        repeated = [p for p in prompts for _ in range(count)]
        got = rewarder([p.prompt for p in repeated], texts, [p.record for p in repeated])
        return got.rewards.reshape(len(prompts), count), got.report, texts

    def in_paint(params, prompts, responses, values, rng):
        """Groups without a right response get some that were given parts of one: (responses, rewards, given tokens)."""
        hints, wrong = np.zeros(responses.shape, bool), np.flatnonzero((values == 0).all(axis=1))
        if not wrong.size:
            return responses, values, hints, runner.RewardReport()
        traces, there = in_places([trace_of(p, tokenizer) for p in prompts], length, tokenizer.eos_id, "a trace")
        traces, there = np.repeat(traces, group_size, axis=0), np.repeat(there, group_size, axis=0)
        keys = jax.random.split(rng, 4)
        low, high = inpainting.smallest_share, inpainting.largest_share
        given = igpo_hint_masks(
            jax.random.uniform(keys[0], there.shape), jax.random.uniform(keys[1], there.shape),
            jax.random.uniform(keys[2], there.shape[:1], minval=low, maxval=high), jnp.asarray(there),
            smallest_chunk=inpainting.smallest_chunk, largest_chunk=inpainting.largest_chunk,
        )  # fmt: skip
        given = np.asarray(given)
        drawn = respond(
            params, prompts, keys[3], group_size, settings.temperature, given=traces, given_mask=given
        )  # for all groups: one shape, one compilation
        grid = (len(prompts), group_size, length)
        got, failures, _ = rewards_of([prompts[i] for i in wrong], drawn.reshape(grid)[wrong].reshape(-1, length),
                                      group_size)  # fmt: skip
        in_painted = np.zeros_like(values)
        in_painted[wrong] = got
        flat = in_painted.reshape(-1)
        group_ids = np.repeat(np.arange(len(prompts)), group_size)
        chosen = np.asarray(
            igpo_replacements(
                jnp.asarray(values.reshape(-1), jnp.float32), jnp.asarray(flat > 0), jnp.asarray(group_ids),
                jnp.ones(flat.shape, bool), lambda_=inpainting.largest_replaced,
            )
        )  # fmt: skip
        taken = chosen >= 0
        responses, hints = np.where(taken[:, None], drawn[chosen], responses), taken[:, None] & given[chosen]
        values = np.where(taken, flat[chosen], values.reshape(-1)).reshape(values.shape)
        return responses, values, hints, failures

    def to_batch(prompts, responses: np.ndarray, values: np.ndarray | None, hints: np.ndarray) -> dict[str, np.ndarray]:
        tokens, mask = rollouts.pad_prompts([p.tokens for p in prompts], config.data.prompt_length, tokenizer.pad_id)
        everywhere = rollouts.Rollout(responses, np.ones(responses.shape, bool), np.zeros(responses.shape, np.float32))
        count = len(responses) // len(prompts)
        batch = rollouts.to_rows(tokens, mask, everywhere, count, np.array([p.id for p in prompts]))
        batch["mask"] = up_to_end(responses, tokenizer.eos_id).reshape(batch["mask"].shape)
        del batch["behaviour_token_logps"]  # there are none of a sample as a whole: `hide` has those of a masking
        if values is not None:
            batch["rewards"], batch["labels"], batch["correct"] = values, values, values > 0
            batch["hint_mask"] = hints.reshape(batch["mask"].shape)
        return batch

    def demonstrations(prompts) -> np.ndarray:
        lists = [demonstration_of(config, p, tokenizer) for p in prompts]
        return in_places(lists, length, tokenizer.eos_id, "a demonstration")[0]

    def evaluate(params, method_state) -> tuple[dict[str, float], list[dict]]:
        values, lines, sums = [], [], {}
        count = config.evaluation.samples
        for first in range(0, len(held_out), settings.prompts):
            part = held_out[first : first + settings.prompts]
            filled = [*part, *[part[0]] * (settings.prompts - len(part))]  # one shape, one compilation
            key = jax.random.fold_in(jax.random.key(7), first)
            drawn = respond(params, filled, key, count, config.evaluation.temperature)
            got, _, texts = rewards_of(filled, drawn, count)
            values.append(got[: len(part)])
            if not from_samples:
                batch = to_batch(filled, demonstrations(filled), None, None)
                batch["valid"] &= (np.arange(len(filled)) < len(part))[:, None]
                rows = hide(params, frozen_params, mesh.put_batch(device_mesh, batch), key)
                for key, value in zip(("sum", "weight"), evaluation(params, frozen_params, method_state, rows),
                                      strict=True):  # fmt: skip
                    sums[key] = jax.tree.map(jnp.add, sums[key], value) if key in sums else value
            lines = lines or [
                {"prompt": p.prompt, "completion": texts[i * count], "reward": float(got[i, 0])}
                for i, p in enumerate(part[:8])
            ]
        means = step.divide(sums["sum"], sums["weight"]) if sums else {}
        loss = {"loss": float(sum(t.weight * means[t.name] for t in terms))} if sums else {}
        return loss | {"reward": float(np.concatenate(values).mean())}, lines

    # --- restore
    description = {
        "model": from_config.describe_model(model.config),
        "objective": checkpoints.as_json(
            {k: config[k].to_dict() for k in ("objective", "shaping", "advantages", "rewards", "rollout", "masking")}
            | {"seed": config.seed, "source": config.data.source, "inpainting": inpainting.to_dict()}
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
    metrics_log.forget_after(workdir / "samples.jsonl", first, "iteration")
    progress = metrics_log.Progress(name, config.training.iterations, first, config.training.log_every)
    failures_so_far = runner.RewardReport()
    last_evaluation: dict[str, float] = {}
    with reward_models.rewarder(functions, reward_weights, models_of_reward, config.reward_runner) as rewarder:
        try:
            if held_out and not first:
                last_evaluation, lines = evaluate(train_state.params, train_state.method_state)
                log.write(0, last_evaluation, "eval")
                reinforce.write_samples(workdir, 0, lines)
            for at in range(first + 1, config.training.iterations + 1):
                began = time.monotonic()
                # Everything random about an iteration follows from the seed and its number: nothing else to restore.
                key = jax.random.fold_in(jax.random.key(config.seed), at)
                order = np.random.default_rng([config.seed, at])
                prompts = prompt_sets.next_prompts(train, settings.prompts, config.seed, at, 0)
                values = {}
                if from_samples:
                    responses = respond(train_state.params, prompts, jax.random.fold_in(key, 0), group_size,
                                        settings.temperature)  # fmt: skip
                    rewards, failures, _ = rewards_of(prompts, responses, group_size)
                    failures_so_far, hints = failures_so_far + failures, np.zeros(responses.shape, bool)
                    values |= {
                        "reward": float(rewards.mean()),
                        "groups_alike": float((np.ptp(rewards, axis=1) == 0).mean()),
                        "groups_all_wrong": float((rewards == 0).all(axis=1).mean()),
                    }
                    if inpainting.largest_replaced:
                        responses, rewards, hints, failures = in_paint(
                            train_state.params, prompts, responses, rewards, jax.random.fold_in(key, 1)
                        )
                        failures_so_far += failures
                        values["groups_still_wrong"] = float((rewards == 0).all(axis=1).mean())
                    batch = to_batch(prompts, responses, rewards, hints)
                    values["rewards_failed"] = float(failures_so_far.failed)
                else:
                    batch = to_batch(prompts, np.repeat(demonstrations(prompts), group_size, axis=0), None, None)
                rolled = time.monotonic()

                prepared, memory = prepare(train_state.method_state, mesh.put_batch(device_mesh, batch))
                train_state = train_state.replace(method_state=memory)
                # All epochs are scored before the first update: what sampled is then still what scores.
                epochs = [
                    jax.device_get(
                        hide(train_state.params, frozen_params, prepared, jax.random.fold_in(key, 2 + epoch))
                    )
                    for epoch in range(config.training.epochs)
                ]
                for rows in epochs:
                    for part in np.split(order.permutation(settings.prompts), config.training.minibatches):
                        numbers = (part[:, None] * samples + np.arange(samples)).reshape(-1)  # all maskings of a prompt
                        minibatch = mesh.put_batch(device_mesh, rollouts.take(rows, numbers))
                        train_state, logs = train_step(train_state, frozen_params, minibatch)
                if int(logs["skipped_in_a_row"]) >= config.training.max_skipped_in_a_row:
                    path = workdir / "nonfinite.json"
                    path.write_text(json.dumps({"iteration": at, "prompt_ids": batch["ids"].tolist()}, indent=1))
                    raise command.RunStopped(
                        f"{name} iteration {at}: loss or gradient was not finite {int(logs['skipped_in_a_row'])} steps "
                        f"in a row; the prompts' ids are in {path}"
                    )

                tokens = int(batch["mask"].sum())
                values |= {k: float(v) for k, v in logs.items()}
                values |= {
                    "completion_length": float(batch["mask"].sum(axis=-1).mean()),
                    "learning_rate": float(rate(int(train_state.step) - 1)),
                    "rollout_seconds": rolled - began,
                    "update_seconds": time.monotonic() - rolled,
                }
                log.write(at, values)
                progress.advance(at, tokens, values if at % config.training.log_every == 0 else None)
                stopping, fresh = stop.requested(), None
                if held_out and (at % config.training.eval_every == 0 or at == config.training.iterations):
                    last_evaluation, lines = evaluate(train_state.params, train_state.method_state)
                    fresh = last_evaluation
                    log.write(at, last_evaluation, "eval")
                    reinforce.write_samples(workdir, at, lines)
                if at % config.checkpoints.every == 0 or at == config.training.iterations or stopping:
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
    result |= {"iterations": config.training.iterations, "evaluation": last_evaluation,
               "skipped": int(train_state.skipped), "rewards_failed": failures_so_far.failed}  # fmt: skip
    if evaluations:
        result["reward_before"], result["reward_after"] = evaluations[0]["reward"], evaluations[-1]["reward"]
    result["checkpoint"] = str(workdir / "checkpoints" / str(config.training.iterations))
    result["metrics"], result["curves"] = str(workdir / "metrics.jsonl"), str(workdir / "curves.png")
    metrics_log.draw_curves(history, workdir / "curves.png", name)
    stages.store_result(config, workdir, result)
    if failures_so_far.failed:
        say(f"{name}: {failures_so_far}")
    reinforce.report(result)
    return result


if __name__ == "__main__":
    command.start(run)
