"""Fine-tunes a language model on offline data: demonstrations, pairs, ranked lists, triples, single verdicts.

    python -m experiments.finetune --config=configs/dpo.py --workdir=DIR [--config.objective.dpo.beta=0.2 ...]

The same command resumes a run that was stopped or killed. WORKDIR receives checkpoints/, metrics.jsonl, tensorboard/,
curves.png and, at the end, hugging_face/ (a checkpoint that transformers loads) and result.json (what was printed);
with config.diagnostics.difficulty also difficulty.jsonl and difficulty.png, with config.adapter also adapter/, as PEFT
writes it (the model in hugging_face/ then has the adapters merged in).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

import alignment.losses
import alignment.metrics
import alignment.policy_gradients
from alignment import objective, statistics
from alignment.data import pipeline
from alignment.models import lora, multi_head
from alignment.training import (
    checkpoints,
    embedding_noise,
    mesh,
    meta_gradient,
    objective_gradients,
    optimizer,
    preemption,
    side_gradients,
    smoothing,
    step,
    stored_reference,
)
from alignment.training import logging as metrics_log
from configs import common
from experiments import (
    command,
    confidence,
    diagnostics,
    exporting,
    from_config,
    gold_reward,
    guarding,
    reward_models,
    stages,
    teachers,
    training_data,
)
from experiments.from_config import say


def gold_settings(config: ConfigDict) -> tuple:
    """What decides the samples that are scored: a run that begins where another ended has that one's samples."""
    return (config.gold.to_dict(), *(config.data[k] for k in ("source", "prompt_length", "completion_length")))


def mean_values(evaluation, params, frozen_params, method_state, batches, tables, device_mesh) -> dict[str, float]:
    """Means over all batches: sums and weights added up, divided once."""
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    for batch in batches:
        got = evaluation(
            params, frozen_params, method_state, mesh.put_batch(device_mesh, stored_reference.join(batch, tables))
        )
        for total, part in zip((sums, weights), got, strict=True):
            for key, value in part.items():
                total[key] = total.get(key, 0.0) + float(value)
    return {k: sums[k] / weights[k] if weights[k] else float("nan") for k in sums}


def evaluate(terms, at: int, *arguments) -> dict[str, float]:
    """The loss and every metric over the whole evaluation set; `arguments` are those of `mean_values`.

    The loss is that of the terms that the last of `at` steps descended; every term is there beside it.
    """
    means = mean_values(*arguments)
    loss = objective.total(terms, means, at - 1)
    silent = {objective_gradients.MEMORY, *([terms[0].name] if len(terms) == 1 else [])}
    return {"loss": loss} | {k: v for k, v in means.items() if k not in silent}


def run(
    config: ConfigDict, workdir: Path, on_evaluation: Callable[[int, Mapping[str, float]], None] | None = None
) -> dict[str, Any]:
    """One run from data to checkpoint; returns what it prints at the end. A SIGTERM saves and exits with 0.

    A run that has finished under the same config is not done again: it only says what came out. `on_evaluation` is
    called with the step and the metrics of each evaluation; what it raises ends the run.
    """
    common.check_keys(config, common.base())
    common.check_numbers(config)
    if (result := stages.finished(config, workdir, config.training.steps)) is not None:
        report(result)
        return result
    with preemption.StopOnSignal() as stop:
        return _run(config, workdir, stop, on_evaluation)


def _run(config: ConfigDict, workdir: Path, stop: preemption.StopOnSignal, on_evaluation) -> dict[str, Any]:
    name = "+".join(config.objective)
    command.check_writable(workdir)

    # --- mesh
    device_mesh = mesh.make_mesh(config.mesh)
    mesh.check_batch(device_mesh, config.data.batch_size, config.training.accumulate)

    # --- data
    data = from_config.load_data(config)
    by_process = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    if config.data.by_confidence:
        before = stages.before_directory(config, workdir)
        data = confidence.in_pairs(config, data, workdir, before, device_mesh, by_process, run)
    corrupted = training_data.corruptions(config, data)
    evaluation_batches = (
        pipeline.evaluation_batches(
            data.evaluation,
            batch_size=config.data.batch_size,
            collate=data.collate,
            mix=data.mix,
            corrupt=corrupted.evaluation,
            **by_process,
        )
        if data.evaluation
        else []
    )

    # --- objective
    columns = [*data.columns, *corrupted.columns, "random_bits", *(["strength_means"] if config.voters else [])]
    columns += ["token_rewards"] if any(config.data.revision_prompts.values()) else []
    sizes = objective.SIZES | data.sizes | {"heads": config.model.reward_heads}
    kernels = objective.union(alignment.losses, alignment.policy_gradients)
    terms = objective.bind(
        config.objective.to_dict(), kernels, "objective", data.sides, columns, sizes, config.training.steps
    )
    metrics = objective.bind(config.metrics.to_dict(), alignment.metrics, "metrics", data.sides, columns, sizes)
    combined = config.training.gradient in common.COMBINATIONS
    terms = objective_gradients.with_memory(terms, config.training.accumulate) if combined else terms
    names = objective.names_of((*terms, *metrics)) + diagnostics.names_of(config.diagnostics)
    needs = statistics.needs_of(names)
    teachers.check(config, needs.models | ({"teacher"} if config.data.by_confidence else set()), data.tokenizer)
    if needs.head - set(statistics.FEATURES) and not config.model.reward_heads:
        raise ValueError("config.model.reward_heads: the objective reads a reward head; set it to 1")
    if config.voters and "strength_means" not in names:
        raise ValueError("config.voters: no kernel of this objective asks for strength_means")
    objective.check_accumulation(terms, config.training.accumulate)
    diagnostics.check(config, terms, data)
    if unread := sorted(set(data.columns) - {"ids", "valid", *names}):
        say(f"columns of the data that no kernel reads: {', '.join(unread)}")

    # --- model
    model, given = from_config.build_model(config, data.tokenizer.vocab_size, device_mesh)
    rules = from_config.sharding_rules(config, model)
    if config.before:
        result_before = stages.run_before(config, workdir, run)
        given = stages.params_before(config, workdir, model, device_mesh)
        say(f"{name}: starting from the parameters in {stages.before_directory(config, workdir)}")
    if config.adapter.rank and "second_features" in needs.head:
        raise ValueError("config.adapter.rank: a second view drops weights of the whole model, which adapters are not")
    adapter, store = from_config.make_adapter(config), from_config.stored_base(config)
    params = from_config.initial_params(model, given, config.seed, device_mesh, rules, store)
    stream = pipeline.training_batches(
        data.train,
        batch_size=config.data.batch_size,
        seed=config.seed,
        collate=data.collate,
        mix=data.mix,
        order=training_data.order(config, data, model, params, device_mesh, by_process),
        corrupt=corrupted.training,
        steps_in_all=config.training.steps,
        **by_process,
    )
    scoring = {"chunk_size": config.training.vocabulary_chunk or None, "temperature": config.training.temperature}
    scoring |= {"view_dropout": config.training.view_dropout} if "second_features" in needs.head else {}
    if config.training.features_layer:
        if "token_features" not in needs.head or not 1 <= config.training.features_layer <= model.config.num_layers:
            raise ValueError(
                f"config.training.features_layer: {config.training.features_layer} is no layer of this model (1 to "
                f"{model.config.num_layers}), or no kernel of this objective asks for token_features"
            )
        scoring["features_layer"] = config.training.features_layer
    reference = None
    if "reference" in needs.models:
        before = stages.before_directory(config, workdir)
        reference = from_config.reference_params(config, before, model, params, device_mesh)
    elif config.reference.update_every or config.reference.soup:
        raise ValueError("config.reference: no kernel of this objective asks for a reference")
    tables = from_config.stored_tables(
        config, workdir, names, needs, model, params, reference, data, device_mesh, by_process
    )
    if config.voters:
        voters = reward_models.voters_config(config, stages.before_directory(config, workdir))
        run(voters, workdir / "voters")
        reward_models.add_votes(tables, workdir, voters, data, device_mesh, by_process)
    frozen_params, frozen_models, moving = {}, {}, None
    if reference is not None and not config.precompute_reference:
        frozen_models = {"reference": model}
        if config.reference.update_every:  # then it changes, and belongs to the state and to the checkpoint
            moving = reference
        else:
            frozen_params = {"reference": reference}
    del reference
    before = stages.before_directory(config, workdir)
    for role, taught in teachers.load(
        config, needs.models, workdir, before, model, data.tokenizer, device_mesh, run
    ).items():
        frozen_models[role], frozen_params[role] = taught
    of_trained, model_params = lambda make: make(model), lambda params: params
    if adapter:
        base, params = params, from_config.adapters_on(config, adapter, model, params, device_mesh)
        frozen_params["base"] = base
        of_trained = functools.partial(lora.on_base, adapter, model)
        model_params = functools.partial(lora.attach, adapter, base)
    penalty, fixed = guarding.make(config, adapter, model, adapter and base, device_mesh)
    beside = {step.PENALTY: fixed} if penalty else {}  # what only the training step is given

    if config.model.output_heads:
        if adapter:
            raise ValueError("config.adapter.rank: output heads are trained whole; set it to 0")
        if "objective_ids" not in data.columns:
            raise ValueError("config.model.output_heads: the data give no objective_id, by which a pair finds its head")
        if moving is not None:
            raise ValueError("config.reference.update_every: a policy with output heads cannot become its reference")
        plain, count = model, config.model.output_heads
        model = multi_head.wrap(plain, count)  # the reference stays the plain one
        params = multi_head.add_heads(plain, params, count, jax.random.key(config.seed + 2))

    # --- optimizer and step
    tx, rate = optimizer.make(config.optimizer, config.training.steps)
    draws = statistics.Draws(config.draws.count, config.draws.temperature)
    noise = config.training.embedding_noise

    def losses_of(model):
        plain = step.make_losses(model, frozen_models, terms, metrics, data.sides, draws=draws, **scoring)
        return embedding_noise.with_noise(plain, model.config.hidden_size, alpha=noise) if noise else plain

    losses = of_trained(losses_of)
    if config.training.gradient == "pairwise_normalized":
        gradient = of_trained(
            lambda model: side_gradients.make_gradient(model, frozen_models, terms, metrics, data.sides, **scoring)
        )
        make_step = functools.partial(step.make_update, gradient)
    elif config.training.gradient == "meta_rm":
        meta = {"meta_step": config.training.meta_step, "draws": draws, **scoring}
        gradient = of_trained(
            lambda model: meta_gradient.make_gradient(model, frozen_models, terms, metrics, data.sides, columns, **meta)
        )
        make_step = functools.partial(step.make_update, gradient)
    elif config.training.gradient in common.SMOOTHERS:
        gradient = smoothing.make_gradient(losses, terms, config.training.gradient, config.smoothing)
        make_step = functools.partial(step.make_update, gradient)
    elif combined:
        gradient = objective_gradients.make_gradient(losses, terms, config.training.gradient, **config.gradient_weights)
        make_step = functools.partial(step.make_update, gradient)
    else:
        make_step = functools.partial(step.make_step, losses)
    memory = objective.initial_states(terms)
    train_state, abstract, shardings = from_config.initial_state(
        params, moving, tx, lambda params: memory, config.seed, device_mesh, rules
    )
    del params, moving
    frozen_shardings = jax.tree.map(lambda x: x.sharding, frozen_params | beside)
    draws_from_rng = bool(noise) or "sampled_token_logps" in needs.policy
    draws_from_rng |= config.training.gradient == "randomized_smoothing"
    train_step = jax.jit(
        make_step(
            terms,
            metrics,
            data.sides,
            tx,
            accumulate=config.training.accumulate,
            draws_from_rng=draws_from_rng,
            reference_every=config.reference.update_every,
            reference_weight=config.reference.update_weight,
            penalty=penalty,
        ),
        in_shardings=(shardings, frozen_shardings, mesh.batch_sharding(device_mesh)),
        out_shardings=(shardings, mesh.replicated(device_mesh)),
        donate_argnums=0,
    )
    evaluation = jax.jit(
        step.make_evaluation(losses, terms, metrics, data.sides), out_shardings=mesh.replicated(device_mesh)
    )
    entanglement = None
    if config.diagnostics.gradient_entanglement:
        entanglement, few_batches = diagnostics.entanglement(
            config, of_trained, frozen_models, terms, data, device_mesh, by_process, **scoring
        )

    # --- gold reward before
    result: dict[str, Any] = {"name": name}
    sources = (config.data.source, config.data.eval_source)
    with_gold = any(s == "corpus" or s.startswith("recipe:") for s in sources) and config.gold.samples > 0
    sample_gold = functools.partial(
        gold_reward.sample,
        samples=config.gold.samples,
        prompt_length=config.data.prompt_length,
        completion_length=config.data.completion_length,
        temperature=config.gold.temperature,
        prompt=config.gold.prompt,
    )
    if with_gold and config.before and gold_settings(config.before) == gold_settings(config):
        result["win_rate_before"], result["gold_before"] = result_before["win_rate_after"], result_before["gold_after"]
    elif with_gold:
        samples = sample_gold(model, model_params(train_state.params), data.tokenizer)
        result["win_rate_before"], result["gold_before"] = samples.win_rate, float(samples.rewards.mean())

    # --- restore
    description = {
        "model": from_config.describe_model(model.config, config.adapter),
        "objective": checkpoints.as_json(
            {"terms": config.objective.to_dict(), "seed": config.seed, "reference": config.reference.to_dict()}
            | {key: config.model[key] for key in ("output_heads", "control_tokens") if config.model[key]}
            | guarding.description(config)
            | {role: config[role].to_dict() for role in teachers.ROLES if role in needs.models}
            | {
                k: config.data[k]
                for k in ("source", "kind", "batch_size", "prompt_length", "completion_length", "packed")
            }
        ),
    }
    manager = checkpoints.open_manager(
        workdir / "checkpoints",
        keep_last=config.checkpoints.keep_last,
        best_metric=config.checkpoints.best_metric,
        best_mode=config.checkpoints.best_mode,
    )
    first = manager.latest_step() or 0
    if first:
        abstract = checkpoints.abstract(abstract, shardings)
        train_state = checkpoints.restore(manager, first, abstract, stream, description)
        say(f"{name}: going on from step {first} in {workdir / 'checkpoints'}")

    # --- loop
    log = metrics_log.MetricsLog(workdir, first) if jax.process_index() == 0 else None
    progress = metrics_log.Progress(name, config.training.steps, first, config.training.log_every) if log else None
    last_evaluation: dict[str, float] = {}
    evaluated = 0
    ids: dict[int, list[int]] = {}  # of the last batches, by step
    packed = {row[0].id: [e.id for e in row] for row in data.train} if config.data.packed else {}

    def check_finite(logs, of: int) -> None:
        count = int(logs["skipped_in_a_row"])
        if count >= config.training.max_skipped_in_a_row:
            batches = {s: i for s, i in ids.items() if of - count < s <= of}
            path = workdir / "nonfinite.json"
            path.write_text(json.dumps({"last_step": of, "example_ids_by_step": batches}, indent=1))
            raise command.RunStopped(
                f"{name} step {of}: loss or gradient was not finite {count} steps in a row; "
                f"the batches' example ids are in {path}"
            )

    at = first
    previous = None
    began, tokens_since = time.monotonic(), 0
    try:
        for at in range(first + 1, config.training.steps + 1):
            batch = stored_reference.join(next(stream), tables["train"])
            tokens = int((batch["segment_ids"] != 0).sum()) * jax.process_count()
            ids[at] = [i for first in batch["ids"].tolist() for i in packed.get(first, [first])]
            ids.pop(at - config.training.max_skipped_in_a_row - 1, None)
            train_state, logs = train_step(train_state, frozen_params | beside, mesh.put_batch(device_mesh, batch))
            if at == config.training.steps:
                final = optimizer.finish(config.optimizer, train_state.params, train_state.opt_state)
                train_state = dataclasses.replace(train_state, params=final)
            # The step before this one has finished by now or nearly so: looking at it does not hold this one up.
            if previous is not None:
                check_finite(previous, at - 1)
            previous = logs
            tokens_since += tokens
            values = None
            if at % config.training.log_every == 0 or at == config.training.steps:
                values = {k: float(v) for k, v in logs.items()}
                values["learning_rate"] = float(rate(at - 1))
                seconds = time.monotonic() - began
                values["tokens_per_second"] = tokens_since / seconds
                began, tokens_since = time.monotonic(), 0
                if log:
                    log.write(at, values)
            if progress:
                progress.advance(at, tokens, values)
            if evaluation_batches and (at % config.training.eval_every == 0 or at == config.training.steps):
                models = (train_state.params, step.with_reference(frozen_params, train_state), train_state.method_state)
                evaluated, last_evaluation = (
                    at,
                    evaluate(terms, at, evaluation, *models, evaluation_batches, tables["eval"], device_mesh),
                )
                if entanglement:
                    last_evaluation |= mean_values(entanglement, *models, few_batches, tables["eval"], device_mesh)
                if log:
                    log.write(at, last_evaluation, "eval")
                if on_evaluation:
                    on_evaluation(at, last_evaluation)
                began, tokens_since = time.monotonic(), 0
            stopping = stop.requested()
            if at % config.checkpoints.every == 0 or at == config.training.steps or stopping:
                check_finite(logs, at)
                best = config.checkpoints.best_metric
                if best and best not in last_evaluation and not stopping:
                    raise ValueError(f"config.checkpoints.best_metric: {best!r} is not among {sorted(last_evaluation)}")
                # An evaluation of an earlier step must not make this one the best.
                checkpoints.save(
                    manager, at, train_state, stream, description, last_evaluation if evaluated == at else None
                )
            if stopping:
                checkpoints.wait(manager)
                say(f"{name}: stopped by SIGTERM at step {at}, checkpoint saved in {workdir / 'checkpoints'}; "
                    "run the same command again to go on")  # fmt: skip
                raise SystemExit(0)
        checkpoints.wait(manager)
    finally:
        if log:
            progress.close()
            log.close()
        manager.close()

    # --- results
    result["evaluation"] = last_evaluation
    result["steps"], result["skipped"] = at, int(train_state.skipped)
    result["checkpoint"] = str(workdir / "checkpoints" / str(config.training.steps))
    result["metrics"], result["curves"] = str(workdir / "metrics.jsonl"), str(workdir / "curves.png")
    if with_gold:
        samples = sample_gold(model, model_params(train_state.params), data.tokenizer)
        result["win_rate_after"], result["gold_after"] = samples.win_rate, float(samples.rewards.mean())
        if config.before:
            start = (
                base
                if adapter
                else from_config.initial_params(
                    model, stages.params_before(config, workdir, model, device_mesh), config.seed, device_mesh, rules
                )
            )
            result["kl_to_start"] = gold_reward.kl_to_start(
                model, model_params(train_state.params), start, samples, temperature=config.gold.temperature
            )
    if config.diagnostics.difficulty:
        result["difficulty"] = diagnostics.write_difficulty(
            workdir, model, frozen_models, model_params(train_state.params),
            {w: p for w, p in step.with_reference(frozen_params, train_state).items() if w != "base"},
            terms, data.sides,
            (stored_reference.join(b, tables["eval"]) for b in evaluation_batches), device_mesh, **scoring,
        )  # fmt: skip
    if not config.model.output_heads and not config.model.control_tokens:  # which transformers knows nothing of
        result |= exporting.write(
            config, workdir, model.config, adapter, adapter and base, train_state.params, data.tokenizer
        )
    elif config.checkpoints.export_hugging_face:
        say(f"{name}: not written to hugging_face/, whose layout has neither several output heads nor control tokens")
    if jax.process_index() == 0:
        metrics_log.draw_curves(metrics_log.read_metrics(workdir / "metrics.jsonl"), workdir / "curves.png", name)
        stages.store_result(config, workdir, result)
    report(result)
    return result


def report(result: Mapping[str, Any]) -> None:
    say(f"\n{result['name']}: {result['steps']} steps, {result['skipped']} skipped")
    if result["evaluation"]:
        say("  evaluation    " + "  ".join(f"{k} {v:.4f}" for k, v in result["evaluation"].items()))
    if "win_rate_after" in result:
        say(
            f"  gold win rate against demonstrations: {result['win_rate_before']:.3f} before, "
            f"{result['win_rate_after']:.3f} after "
            f"(mean gold reward {result['gold_before']:.2f} -> {result['gold_after']:.2f})"
        )
    if "kl_to_start" in result:
        say(f"  KL to where it started, per sampled completion: {result['kl_to_start']:.2f} nats")
    for key in ("checkpoint", "metrics", "curves", "difficulty", "adapter", "hugging_face"):
        if key in result:
            say(f"  {key:13} {result[key]}")


if __name__ == "__main__":
    command.start(run)
