"""Trains a language model on its own samples: prompts, rollouts, rewards, advantages, updates.

    python -m experiments.reinforce --config=configs/grpo.py --workdir=DIR [--config.rollout.group_size=16 ...]

The same command goes on with a run that was stopped or killed. WORKDIR receives checkpoints/, metrics.jsonl,
tensorboard/, samples.jsonl (a few completions of every evaluation), curves.png, hugging_face/ and result.json.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import alignment.losses
import alignment.metrics
import alignment.multi_objective
import alignment.policy_gradients
from alignment import objective, statistics
from alignment.models import heads, lora
from alignment.rewards import runner
from alignment.training import (
    checkpoints,
    last_completions,
    mesh,
    objective_gradients,
    optimizer,
    pairs,
    preemption,
    references,
    rollouts,
    step,
)
from alignment.training import logging as metrics_log
from configs import common, online
from experiments import (
    command,
    curriculum,
    engines,
    exporting,
    finetune,
    from_config,
    prompt_sets,
    reward_models,
    rolling_out,
    several_rewards,
    stages,
    teachers,
)
from experiments.engines import ENGINE
from experiments.from_config import say

# What a rollout brings along; estimators and the objective may name it.
ROLLOUT_COLUMNS = ("valid", "ids", "group_ids", "prompt_ids", "behaviour_token_logps")
OF_THE_REWARDS = ("rewards", "labels", "correct", "answers")  # labels: the rewards, for kernels of ranked lists


def run(config: ConfigDict, workdir: Path, on_evaluation=None) -> dict[str, Any]:
    """One run from prompts to checkpoint; returns what it prints at the end. A SIGTERM saves and exits with 0."""
    common.check_keys(config, online.base(), free=online.FREE)
    online.check_numbers(config)
    if (result := stages.finished(config, workdir, config.training.iterations)) is not None:
        report(result)
        return result
    with preemption.StopOnSignal() as stop:
        return _run(config, workdir, stop, on_evaluation)


def _run(config: ConfigDict, workdir: Path, stop: preemption.StopOnSignal, on_evaluation) -> dict[str, Any]:
    name = "+".join(config.objective)
    command.check_writable(workdir)
    settings, group_size = config.rollout, config.rollout.group_size
    separate = config.value.model == "separate"

    # --- mesh
    device_mesh = mesh.make_mesh(config.mesh)
    minibatch = settings.prompts // config.training.minibatches
    mesh.check_batch(device_mesh, minibatch, config.training.accumulate)
    mesh.check_batch(device_mesh, settings.prompts, 1)

    # --- prompts and rewards
    tokenizer = from_config.load_tokenizer(config)
    train, held_out = prompt_sets.load(config, tokenizer)
    functions, reward_weights = several_rewards.functions(config)
    models_of_reward = reward_models.bind(config.rewards, device_mesh)
    several_rewards.check(config, [*train, *held_out], tokenizer)
    sizes = objective.SIZES | {"objectives": len(config.rewards), "heads": config.model.reward_heads}

    # --- model and engine
    model, given_params = from_config.build_model(config, tokenizer.vocab_size, device_mesh)
    rules = from_config.sharding_rules(config, model)
    frozen_models, frozen_params = {}, {}
    engine = engines.make(config, model, tokenizer, frozen_models, frozen_params)

    # --- shaping, advantages, curriculum, objective
    names_before = [*ROLLOUT_COLUMNS, *OF_THE_REWARDS, "greedy_rewards", "behaviour_token_values", "drifts"]
    names_before += [*engine.columns, *rolling_out.columns(config), *several_rewards.columns(config, train)]
    kernels = objective.union(alignment.policy_gradients, alignment.multi_objective)
    num_prompts = max(p.id for p in train) + 1
    shaping = objective.bind_estimators(
        objective.with_num_prompts(config.shaping.to_dict(), kernels, "shaping", num_prompts),
        kernels, "shaping", ("rewards", "token_rewards"), names_before, sizes,
    )  # fmt: skip
    shaped = objective.columns_of(shaping)
    advantages = objective.bind_estimators(
        objective.with_num_prompts(config.advantages.to_dict(), kernels, "advantages", num_prompts),
        kernels, "advantages", ("advantages", "token_advantages"), [*names_before, *shaped], sizes,
    )  # fmt: skip
    estimators = (*shaping, *advantages)
    chooser = curriculum.bind(config, estimators)
    given = objective.columns_of(advantages)
    columns = [*names_before, *shaped, *given, *(["token_advantages"] if "advantages" in given else [])]
    sides, choose = statistics.EACH, None
    if settings.pairs:  # what is estimated is of completions, what is trained on of pairs
        choose = getattr(pairs, settings.pairs)
        sides = pairs.SIDES if "opponents" in engine.columns else pairs.SIDES[:2]
        columns = [*pairs.COLUMNS, *(pairs.OF_A_JUDGE if settings.judge else ())]
    terms = objective.bind(
        config.objective.to_dict(), objective.union(alignment.losses, kernels), "objective", sides, columns, sizes
    )
    combined = config.training.gradient != "ordinary"
    terms = objective_gradients.with_memory(terms, config.training.accumulate) if combined else terms
    if not config.curriculum:  # which may give a prompt several rows
        objective.check_groups(estimators, terms, group_size)
    metrics = objective.bind(
        config.metrics.to_dict(), objective.union(alignment.metrics, kernels), "metrics", sides, columns, sizes
    )
    objective.check_accumulation((*terms, *metrics), config.training.accumulate)
    estimated = objective.names_of([e.term for e in estimators])
    read = [*estimated, *objective.names_of((*terms, *metrics))]
    needs = statistics.needs_of(objective.names_of((*terms, *metrics)))
    scored = statistics.needs_of([n for n in estimated if not n.startswith("behaviour_")])
    values_chosen = "prompt_values" in chooser.names("choose")
    if (needs.head or values_chosen) and not (config.model.reward_heads or separate):
        raise ValueError("config.model.reward_heads: the run reads a value head; set it to 1")
    if separate and not needs.head:
        raise ValueError("config.value.model: no term of the objective trains a value head")
    if settings.strata and "strata" not in read:
        raise ValueError("config.rollout.strata: no kernel of this run asks for strata")
    if settings.pairs and "sampling_weights" in given:
        raise ValueError("config.rollout.pairs: completions that are drawn anew for training have no pair")
    if settings.recycle and {"prompt_ids", "drifts"} & set(read):
        raise ValueError("config.rollout.recycle: a kernel of this run remembers prompts, and these come only once")
    with_samples = any(statistics.parse(n).side == "samples" for n in read)
    with_values, with_drifts = any(n.endswith("token_values") for n in read), "drifts" in read
    models = needs.models | scored.models | engine.models
    teachers.check(config, models, tokenizer)

    # --- parameters
    if config.before:
        stages.run_before(config, workdir, finetune.run)
        given_params = stages.params_before(config, workdir, model, device_mesh)
        say(f"{name}: starting from the parameters in {stages.before_directory(config, workdir)}")
    adapter, store = from_config.make_adapter(config), from_config.stored_base(config)
    params = from_config.initial_params(model, given_params, config.seed, device_mesh, rules, store)
    moves = config.reference.update_every or config.training.auxiliary
    if (moves or config.reference.soup) and "reference" not in models:
        raise ValueError("config.reference: nothing of this run asks for a reference")
    moving, before = None, stages.before_directory(config, workdir)
    if "reference" in models:
        reference = from_config.reference_params(config, before, model, params, device_mesh)
        frozen_models["reference"] = model
        if moves:
            moving = reference
        else:
            frozen_params["reference"] = reference
        del reference
    for role, taught in teachers.load(
        config, models, workdir, before, model, tokenizer, device_mesh, finetune.run
    ).items():
        frozen_models[role], frozen_params[role] = taught
    if separate:
        params = from_config.with_value_model(model, params, config.seed, device_mesh, rules)
    of_trained, model_params, trained_on = lambda make: make(model), lambda params: params, {}
    if adapter:
        base, params = params, from_config.adapters_on(config, adapter, model, params, device_mesh)
        trained_on = {"base": base}
        of_trained = functools.partial(lora.on_base, adapter, model)
        model_params = functools.partial(lora.attach, adapter, base)

    # --- optimizer and steps
    steps_in_iteration = config.training.epochs * config.training.minibatches
    updates = config.training.iterations * steps_in_iteration
    tx, rate = optimizer.make(config.optimizer, updates)
    if separate:
        rate_of_values = {
            "learning_rate": config.value.learning_rate or config.optimizer.learning_rate,
            "momentum_every": 0,
        }
        tx = optimizer.with_value_model(tx, optimizer.make({**config.optimizer, **rate_of_values}, updates)[0])
    scoring = {"chunk_size": config.training.vocabulary_chunk or None, "temperature": settings.temperature}
    losses = of_trained(lambda model: step.make_losses(model, frozen_models, terms, metrics, sides, **scoring))
    methods = objective.initial_states(terms) | objective.initial_states([e.term for e in estimators])
    methods |= curriculum.shapes(chooser, num_prompts)
    if with_drifts:
        methods["last_completions"] = last_completions.init(num_prompts, config.data.completion_length)

    def memory(params):
        of_engine = engine.init(heads.policy_params(params))
        if adapter and jax.tree.leaves(of_engine):
            raise ValueError("config.rollout.engine: it remembers all parameters, and adapters are trained here")
        return methods | ({ENGINE: of_engine} if jax.tree.leaves(of_engine) else {})

    train_state, abstract, shardings = from_config.initial_state(
        params, moving, tx, memory, config.seed, device_mesh, rules
    )
    del params, moving
    following = {"reference_every": config.reference.update_every, "reference_weight": config.reference.update_weight}
    if config.training.auxiliary:
        following = {"reference_every": steps_in_iteration, "reference_at": steps_in_iteration // 2}
    make_step = functools.partial(step.make_step, losses)
    if combined:
        gradient = objective_gradients.make_gradient(losses, terms, config.training.gradient, **config.gradient_weights)
        make_step = functools.partial(step.make_update, gradient)
    train_step = jax.jit(
        make_step(
            terms, metrics, sides, tx, accumulate=config.training.accumulate,
            **following,
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
        asked = {w: needs.frozen.get(w, frozenset()) | scored.frozen.get(w, frozenset()) for w in frozen_models}
        wanted = {w: frozenset({"token_logps"}) for w, names in asked.items() if "token_logps" in names}
        policy = frozenset({"token_logps"} if settings.importance_cap or truncated else ())
        head = frozenset({"token_values"} if with_values else ())
        if not (wanted or policy or head):
            return out
        computed = statistics.compute(statistics.Needs(policy, wanted, head), model, params, frozen, batch, **scoring)
        out |= {f"{whose}_token_logps": computed[f"{whose}_token_logps"] for whose in wanted}
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
    def rescore(params, frozen_params, batch):
        """What a reference that has moved says of rows that the old one has scored."""
        unscored = {k: v for k, v in batch.items() if k != "reference_token_logps"}
        return {k: v for k, v in score(params, frozen_params, unscored).items() if k == "reference_token_logps"}

    @functools.partial(jax.jit, out_shardings=(None, shardings.method_state))
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

    # --- rollouts, and the prompts to roll out
    tasks = several_rewards.task_names(train)
    rolling = rolling_out.make(config, model, tokenizer, engine, held_out, read, tasks)

    def place(memory):
        return jax.device_put(memory, mesh.replicated(device_mesh))

    hooks = curriculum.hooks(chooser, config, model, tokenizer, train, rolling.roll_out, place)

    @jax.jit
    def logps_now(params, batch):
        needed = statistics.Needs(frozenset({"token_logps"}), {}, frozenset())
        return statistics.compute(needed, model, params, {}, batch, **scoring)["policy_token_logps"]

    def drifts(params, memory, batch) -> np.ndarray:
        """How far the policy has moved since the last completion of each row's prompt, for all of the row."""
        last, known = last_completions.recall(jax.device_get(memory), batch["ids"])
        width = config.data.prompt_length
        prompts, mask = batch["tokens"][:, :width], batch["segment_ids"][:, :width] != 0
        stored = rollouts.to_rows(prompts, mask, last, 1, batch["ids"])
        now = mesh.to_host(logps_now(params, mesh.put_rows(device_mesh, stored)))
        moved = alignment.policy_gradients.spo_drifts(now[:, 0], last.logps, last.mask)
        return np.repeat(np.where(known, moved, 0.0)[:, None], batch["valid"].shape[1], axis=1).astype(np.float32)

    def remembered(memory, batch):
        """The memory with the last completion of each row, and the log-probs that training takes it to have had."""
        last = [
            batch[key][:, -config.data.completion_length:] if key == "tokens" else batch[key][:, -1]
            for key in ("tokens", "mask", "behaviour_token_logps")
        ]  # fmt: skip
        state = jax.device_get(memory["last_completions"])
        new = last_completions.remember(state, batch["ids"], rollouts.Rollout(*last), batch["valid"][:, -1])
        return memory | {"last_completions": place(new)}

    # --- restore
    of_the_run = ("objective", "shaping", "advantages", "rewards", "judges", "curriculum", "value")
    of_pairs = ("judge", "pairs", "pair_margin", "pair_margin_of_own", "pair_floor")
    description = {
        "model": from_config.describe_model(model.config, config.adapter),
        "objective": checkpoints.as_json(
            {k: config[k].to_dict() for k in of_the_run}
            | {"seed": config.seed, "prompts": settings.prompts, "group_size": group_size, "source": config.data.source}
            | ({k: settings[k] for k in ("engine", "engine_settings")} if settings.engine else {})
            | ({k: settings[k] for k in of_pairs} if settings.judge or settings.pairs else {})
            | {role: config[role].to_dict() for role in teachers.ROLES if role in models}
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
    log = progress = None
    if writes := jax.process_index() == 0:  # every process knows the whole rollout, and one tells of it
        log = metrics_log.MetricsLog(workdir, first)
        metrics_log.forget_after(workdir / "samples.jsonl", first, "iteration")
        progress = metrics_log.Progress(name, config.training.iterations, first, config.training.log_every)

    def write_evaluation(at: int, means: Mapping[str, float], lines: list[dict], points: list) -> None:
        if writes:
            several_rewards.write_points(workdir, config, at, points)
            log.write(at, means, "eval")
            write_samples(workdir, at, lines)

    last_evaluation: dict[str, float] = {}
    evaluated, none_ended = 0, False
    failures_so_far = runner.RewardReport()
    with reward_models.rewarder(functions, reward_weights, models_of_reward, config.reward_runner) as rewarder:
        try:
            if not first:
                memory = hooks.start(model_params(train_state.params), train_state.method_state, rewarder)
                train_state = train_state.replace(method_state=memory)
            if held_out and not first:
                last_evaluation, *shown = rolling.evaluate(model_params(train_state.params), rewarder)
                write_evaluation(0, last_evaluation, *shown)
            for at in range(first + 1, config.training.iterations + 1):
                began = time.monotonic()
                # Everything random about an iteration follows from the seed and its number: nothing else to restore.
                key = jax.random.fold_in(jax.random.key(config.seed), at)
                order = np.random.default_rng([config.seed, at])
                kept, drawn, equal = [], 0, 0
                for round_number in range(settings.max_rounds if settings.dynamic_sampling else 1):
                    params, memory = model_params(train_state.params), train_state.method_state
                    chosen = hooks.choose(params, memory, at, round_number)
                    batch, failures, _ = rolling.roll_out(
                        params, memory, chosen, jax.random.fold_in(key, round_number), rewarder
                    )
                    failures_so_far = failures_so_far + failures
                    alike = rollouts.alike(batch)[:, 0]
                    _, first_rows = np.unique(batch["group_ids"][:, 0], return_index=True)
                    drawn, equal = drawn + len(first_rows), equal + int(alike[first_rows].sum())
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

                params, memory = model_params(train_state.params), train_state.method_state
                if with_drifts:
                    whole["drifts"] = drifts(params, memory["last_completions"], whole)
                frozen = step.with_reference(frozen_params, train_state)
                prepared, memory = prepare(params, frozen, memory, mesh.put_rows(device_mesh, whole))
                prepared = {k: mesh.to_host(v) for k, v in prepared.items()}
                memory = hooks.update(params, memory, whole)
                if with_drifts:
                    memory = remembered(memory, prepared)
                train_state = train_state.replace(method_state=memory)
                estimated_rows = prepared
                zero_gradient_groups = rollouts.share_of_groups(rollouts.silent(prepared), prepared)
                if choose:
                    prepared = pairs.of_rollout(
                        prepared, choose, margin=settings.pair_margin, margin_of_own=settings.pair_margin_of_own,
                        floor=settings.pair_floor, with_samples=with_samples,
                    )
                if "sampling_weights" in prepared:
                    prepared = rollouts.resampled(prepared, order)
                if config.training.auxiliary:
                    train_state = train_state.replace(params=references.auxiliary(train_state))
                for number in range(config.training.epochs):
                    if config.training.auxiliary and 2 * number == config.training.epochs:  # the reference has moved
                        frozen = step.with_reference(frozen_params, train_state)
                        anew = rescore(model_params(train_state.params), frozen, mesh.put_rows(device_mesh, prepared))
                        prepared = prepared | {k: mesh.to_host(v) for k, v in anew.items()}
                    permutation = order.permutation(len(prepared["ids"]))
                    for part in np.split(permutation, config.training.minibatches):
                        rows_of_part = mesh.put_rows(device_mesh, rollouts.take(prepared, part))
                        train_state, logs = train_step(train_state, frozen_params | trained_on, rows_of_part)
                if ENGINE in train_state.method_state:
                    policy = heads.policy_params(train_state.params)
                    grown = engine.update(train_state.method_state[ENGINE], policy, estimated_rows)
                    train_state = train_state.replace(method_state=train_state.method_state | {ENGINE: grown})
                if int(logs["skipped_in_a_row"]) >= config.training.max_skipped_in_a_row:
                    path = workdir / "nonfinite.json"
                    path.write_text(json.dumps({"iteration": at, "prompt_ids": whole["ids"].tolist()}, indent=1))
                    raise command.RunStopped(
                        f"{name} iteration {at}: loss or gradient was not finite {int(logs['skipped_in_a_row'])} steps "
                        f"in a row; the prompts' ids are in {path}"
                    )

                valid = whole["valid"]
                cut = rollouts.cut(whole, tokenizer.eos_id)
                if cut.all() and not none_ended:
                    none_ended = True
                    say(f"{name}: no completion of iteration {at} ended by itself, all were cut at "
                        f"config.data.completion_length = {config.data.completion_length}")  # fmt: skip
                values = {k: float(v) for k, v in logs.items()} | several_rewards.logged(config, whole)
                values |= {
                    "reward": float(whole["rewards"][valid].mean()) if valid.any() else float("nan"),
                    "groups_alike": equal / drawn,
                    "zero_gradient_groups": zero_gradient_groups,
                    "completion_length": float(whole["mask"].sum(axis=-1).mean()),
                    "rewards_failed": float(failures_so_far.failed),
                    "truncated": float(cut.mean()),
                    "learning_rate": float(rate(int(train_state.step) - 1)),
                    "rollout_seconds": rolled - began,
                    "update_seconds": time.monotonic() - rolled,
                }
                tokens = int(whole["mask"].sum())
                values["sampled_tokens_per_second"] = tokens / (rolled - began)
                if writes:
                    log.write(at, values)
                    progress.advance(at, tokens, values if at % config.training.log_every == 0 else None)
                stopping = stop.requested()
                if held_out and (at % config.training.eval_every == 0 or at == config.training.iterations):
                    params = model_params(train_state.params)
                    evaluated, (last_evaluation, *shown) = at, rolling.evaluate(params, rewarder)
                    write_evaluation(at, last_evaluation, *shown)
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
            if writes:
                progress.close()
                log.close()
            manager.close()

    # --- results
    history = metrics_log.read_metrics(workdir / "metrics.jsonl") if writes else []
    evaluations = [r for r in history if r["split"] == "eval"]
    result["evaluation"], result["skipped"] = last_evaluation, int(train_state.skipped)
    result["iterations"] = config.training.iterations
    if evaluations:
        result["reward_before"], result["reward_after"] = evaluations[0]["reward"], evaluations[-1]["reward"]
    silent = [r["zero_gradient_groups"] for r in history if r["split"] == "train"]
    if silent := [share for share in silent if share is not None]:  # None: an iteration without any valid group
        result["zero_gradient_groups"] = float(np.mean(silent))
    result["rewards_failed"] = failures_so_far.failed
    if evaluations and len(config.rewards) > 1:
        result |= several_rewards.front(config, workdir)
    result["checkpoint"] = str(workdir / "checkpoints" / str(config.training.iterations))
    result["metrics"], result["curves"] = str(workdir / "metrics.jsonl"), str(workdir / "curves.png")
    trained = heads.policy_params(train_state.params)
    result |= exporting.write(config, workdir, model.config, adapter, adapter and base, trained, tokenizer)
    if writes:
        metrics_log.draw_curves(history, workdir / "curves.png", name)
        stages.store_result(config, workdir, result)
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
    for key in ("checkpoint", "metrics", "curves", "front", "adapter", "hugging_face"):
        if key in result:
            say(f"  {key:13} {result[key]}")


if __name__ == "__main__":
    command.start(run)
