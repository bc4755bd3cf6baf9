"""What a config names, built: the data, the model and its first parameters. Shared by the scripts."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from alignment import statistics
from alignment.data import (
    authors,
    collating,
    controls,
    corpus,
    formats,
    hierarchy,
    injections,
    pipeline,
    rows,
    tokenizers,
    trade_offs,
)
from alignment.data.recipes import on_corpus
from alignment.models import control_tokens, decoder, heads, hugging_face, lora, multi_head, quantized
from alignment.rewards import tasks
from alignment.training import checkpoints, mesh, references, state, stored_reference
from configs import common

# What the completions of a row are called, by kind of data.
SIDES = {
    "completion": ("",),
    "chat": ("",),
    "pairs": ("chosen", "rejected"),
    "lists": ("responses",),
    "unpaired": ("", "mismatched"),
    "triples": ("chosen", "rejected", "gold"),
    "ratings": ("",),
    "steps": ("",),
    "segments": ("",),
    "sampled_pairs": ("chosen", "rejected", "samples"),
    "unlearning": ("forget", "retain", "chosen"),  # chosen if the records have it
    "hierarchy": ("",),
    "hierarchy_pairs": ("chosen", "rejected"),
}
WORLDS = {"authors": authors.generate, "injections": injections.generate}  # sources, or WORLD:PART of them
CONTROLLED = ("completion", "chat", "pairs")  # kinds of data whose sides can each have control tokens of their own


def say(line: str) -> None:
    """Prints on one process only."""
    if jax.process_index() == 0:
        print(line, flush=True)


class Data(NamedTuple):
    tokenizer: Any
    train: list
    evaluation: list
    sides: tuple[str, ...]
    columns: tuple[str, ...]
    collate: Any
    mix: pipeline.Mix | None  # rows of a global batch that take something from each other
    sizes: Mapping[str, int]  # of axes that the data decide, as `objective.bind` takes them


def load_data(config: ConfigDict) -> Data:
    data = config.data
    tokenizer = load_tokenizer(config)
    if data.kind not in formats.KINDS:
        raise ValueError(f"config.data.kind: {data.kind!r} is not one of {', '.join(formats.KINDS)}")
    if config.model.get("control_tokens") and data.kind not in CONTROLLED:
        raise ValueError(
            f"config.model.control_tokens: data of kind {data.kind!r} have no set of them for each side; the kinds "
            f"that do are {', '.join(CONTROLLED)}"
        )
    for key, asked in (
        ("model.num_instruction_levels", config.model.get("num_instruction_levels")),
        ("data.delimiters", any(data.delimiters.values())),
    ):
        if asked and data.kind not in hierarchy.KINDS:
            raise ValueError(
                f"config.{key}: goes with data that say who speaks, of kinds {' and '.join(hierarchy.KINDS)}, not with "
                f"kind {data.kind!r}"
            )

    def read(source: str, split: str, corpus_split: str, size: int, noise: float) -> list:
        if source.startswith("task:"):  # demonstrations of a verifiable task; the noise is theirs
            task = source.removeprefix("task:")
            records = tasks.demonstrations(task, size, config.seed, corpus_split, data.difficulty)
            return formats.from_records(records, data.kind, source)
        world, _, part = source.partition(":")
        if world in WORLDS:
            records = WORLDS[world](data.kind, size, config.seed, corpus_split, part)
            return formats.from_records(records, data.kind, f"{source}/{corpus_split}")
        if source.startswith("recipe:"):
            records, counts = on_corpus.records(source.removeprefix("recipe:"), size, config.seed, corpus_split)
            say(f"{source}/{corpus_split}: " + ", ".join(f"{v} {k.replace('_', ' ')}" for k, v in counts.items()))
            return formats.from_records(records, data.kind, f"{source}/{corpus_split}")
        if source.startswith("trade_offs"):
            records = trade_offs.pairs(size, config.seed, corpus_split, source.removeprefix("trade_offs").lstrip(":"))
            return formats.from_records(records, data.kind, f"{source}/{corpus_split}")
        if source != "corpus":
            return formats.read(source, data.kind, split=split, columns=dict(data.columns), on_invalid=data.on_invalid)
        records = corpus.generate(data.kind, size, config.seed, label_noise=noise, split=corpus_split)
        return formats.from_records(records, data.kind, f"corpus/{corpus_split}")

    def tokenised(examples: list, what: str) -> list:
        out, report = rows.tokenize(
            examples,
            tokenizer,
            prompt_length=data.prompt_length,
            completion_length=data.completion_length,
            too_long=data.too_long,
            delimiters=data.delimiters.to_dict(),
        )
        say(f"{what}: {report}")
        length = config.model.get("control_tokens")
        return [controls.with_set_for_each_side(e, tokenizer.vocab_size, length) for e in out] if length else out

    train = tokenised(read(data.source, data.split, "train", data.corpus_size, data.label_noise), "training data")
    generated = data.source == "corpus" or data.source.startswith(("task:", "recipe:", "trade_offs", *WORLDS))
    eval_source = data.eval_source or (data.source if generated else "")
    held_out = read(eval_source, data.eval_split, "test", data.corpus_eval_size, 0.0) if eval_source else []
    evaluation = tokenised(held_out, "evaluation data") if held_out else []

    mix = collating.with_mismatched if data.kind == "unpaired" else None
    completions = len(train[0].completions) + (mix is not None)
    if mix and config.precompute_reference:
        raise ValueError(
            "config.precompute_reference: the mismatched completion of an unpaired example changes from batch to "
            "batch, so its log-probs cannot be stored"
        )
    if data.packed:
        if completions != 1:
            raise ValueError(f"config.data.packed: a packed example has one completion; these have {completions} sides")
        if config.precompute_reference:
            raise ValueError(
                "config.precompute_reference: packed rows hold several examples; set config.data.packed=False"
            )
        train, evaluation = collating.pack(train, data.packed_length), collating.pack(evaluation, data.packed_length)
        collate = functools.partial(collating.collate_packed, length=data.packed_length, pad_id=tokenizer.pad_id)
        say(f"packed into {len(train)} rows of {data.packed_length} tokens")
    else:
        collate = functools.partial(
            collating.collate_trees if train[0].prompts is None else collating.collate_several_prompts,
            prompt_length=data.prompt_length,
            completion_length=data.completion_length,
            sides=completions,
            pad_id=tokenizer.pad_id,
        )
    one = collate(mix(train[:1]) if mix else train[:1])
    columns = tuple(k for k in one if k in statistics.LABELS or k in statistics.TOKEN_COLUMNS)
    sizes = {"ratings": one["ratings"].shape[-1]} if "ratings" in one else {}
    if "chosen_margin_rewards" in one:  # of all objectives but the trained one
        sizes["objectives"] = one["chosen_margin_rewards"].shape[1] + 1
    of_pairs = data.kind == "chat" and completions == 2  # conversations that end in two ways
    if of_pairs and config.model.get("control_tokens"):
        raise ValueError("config.data.kind: with control tokens, pairs of conversations are of kind pairs, not chat")
    sides = SIDES["pairs" if of_pairs else data.kind][:completions]
    return Data(tokenizer, train, evaluation, sides, columns, collate, mix, sizes)


def revised_batches(
    config: ConfigDict, data: Data, model_config: decoder.DecoderConfig, examples: list, **by_process
) -> Iterator[tuple[collating.Batch, collating.Batch]]:
    """The examples in order, each batch twice: after the text that asks for better and after that for worse answers.

    The texts stand before the prompt (after its begin token): of chat data, before the rendered conversation.
    """
    texts = config.data.revision_prompts
    for key in ("better", "worse"):
        if not texts[key]:
            raise ValueError(f"config.data.revision_prompts.{key}: empty, while the other is not")
    if config.data.packed:
        raise ValueError("config.data.revision_prompts: packed rows hold several prompts; set config.data.packed=False")
    prefixes = [data.tokenizer.encode(texts[key]) for key in ("better", "worse")]
    prompt_length = config.data.prompt_length + max(map(len, prefixes))
    context = prompt_length + config.data.completion_length
    if context > model_config.max_position_embeddings:
        raise ValueError(
            f"config.data.revision_prompts: with them prompt and completion have up to {context} tokens, more than the "
            f"model's context of {model_config.max_position_embeddings}"
        )
    collate = functools.partial(
        collating.collate_trees,
        prompt_length=prompt_length,
        completion_length=config.data.completion_length,
        sides=len(examples[0].completions),
        pad_id=data.tokenizer.pad_id,
    )
    return zip(
        *(
            pipeline.evaluation_batches(
                [rows.with_prefix(e, prefix, data.tokenizer.bos_id) for e in examples],
                batch_size=config.data.batch_size,
                collate=collate,
                **by_process,
            )
            for prefix in prefixes
        ),
        strict=True,
    )


def stored_tables(
    config, workdir: Path, names, needs, model, params, reference, data, device_mesh, by_process
) -> dict[str, dict[str, stored_reference.Table]]:
    """What frozen models say once of all examples: {"train": {batch key: table}, "eval": {...}}.

    The reference gives log-probs; `params`, those of the start, give token rewards.
    """
    token_logps = functools.partial(
        stored_reference.token_logps,
        model,
        chunk_size=config.training.vocabulary_chunk or None,
        temperature=config.training.temperature,
    )
    tables: dict[str, dict] = {"train": {}, "eval": {}}

    def fill(key: str, file: str, what: str, score, batches_of) -> None:
        for split, examples in (("train", data.train), ("eval", data.evaluation)):
            if examples:
                tables[split][key] = stored_reference.load_or_score(
                    workdir / f"{file}_{split}.npz", score, batches_of(examples), {e.id for e in examples},
                    device_mesh, what,
                )  # fmt: skip

    if config.precompute_reference:
        beyond = (needs.policy & statistics.pairwise_names()) | (
            needs.frozen.get("reference", frozenset()) - {"token_logps"}
        )
        if beyond:
            raise ValueError(f"config.precompute_reference: log-probs alone cannot serve {', '.join(sorted(beyond))}")
        if "reference" not in needs.models:
            raise ValueError("config.precompute_reference: no kernel of this objective asks for a reference")

        def plain(examples):
            batches = pipeline.evaluation_batches(
                examples, batch_size=config.data.batch_size, collate=data.collate, **by_process
            )
            return ((batch,) for batch in batches)

        fill("reference_token_logps", "reference", "reference log-probs", token_logps(reference), plain)

    reads_rewards = any(statistics.parse(name).statistic == "token_rewards" for name in names)
    if any(config.data.revision_prompts.values()) and "token_rewards" in data.columns:
        raise ValueError("config.data.revision_prompts: the data bring token_rewards of their own; leave them empty")
    if any(config.data.revision_prompts.values()) and not reads_rewards:
        raise ValueError("config.data.revision_prompts: no kernel of this objective asks for token_rewards")
    if reads_rewards and "token_rewards" not in data.columns:
        revised = functools.partial(revised_batches, config, data, model.config, **by_process)
        rewards = stored_reference.token_rewards(token_logps(params))
        fill("token_rewards", "token_rewards", "token rewards", rewards, revised)
    return tables


def build_model(
    config: ConfigDict, vocab_size: int, device_mesh=None, *, causal: bool = True
) -> tuple[decoder.Model, Path | None]:
    """The model, and the Hugging Face directory that its first parameters are in, if they are."""
    on_mesh = None if device_mesh is None else mesh.batch_sharding(device_mesh)
    settings, data = config.model, config.data
    context = data.packed_length if data.get("packed") else data.prompt_length + data.completion_length
    run_time = {"dtype": settings.dtype, "remat": settings.remat, "reward_heads": settings.reward_heads}
    run_time["causal"] = causal
    run_time["num_instruction_levels"] = settings.get("num_instruction_levels", 0)  # runs before it was a key had none
    if settings.hugging_face:
        loaded = hugging_face.load_config(settings.hugging_face)
        if vocab_size > loaded.vocab_size:
            raise ValueError(
                f"config.model.hugging_face: {settings.hugging_face} has {loaded.vocab_size} token embeddings, its "
                f"tokenizer {vocab_size} tokens"
            )
        if context > loaded.max_position_embeddings:
            raise ValueError(
                f"config.data: prompt and completion of {context} tokens exceed the model's context of "
                f"{loaded.max_position_embeddings} (max_position_embeddings in {settings.hugging_face}/config.json)"
            )
        model = decoder.build(dataclasses.replace(loaded, **run_time), on_mesh)
        return with_controls(config, model), Path(settings.hugging_face)
    sizes = {k: settings[k] for k in ("hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads")}
    model_config = decoder.DecoderConfig(
        vocab_size=vocab_size,
        tie_word_embeddings=settings.tie_word_embeddings,
        max_position_embeddings=max(context, 512),
        **sizes,
        **run_time,
    )
    return with_controls(config, decoder.build(model_config, on_mesh)), None


def with_controls(config: ConfigDict, model: decoder.Model) -> decoder.Model:
    """The model with as many sets of control tokens as the data have sides, if the config asks for any."""
    length = config.model.get("control_tokens")
    return control_tokens.wrap(model, len(SIDES[config.data.kind]), length) if length else model


def describe_model(config: decoder.DecoderConfig, adapter: ConfigDict | None = None) -> dict:
    """What must agree for a checkpoint to fit; how it is computed may differ between runs.

    A checkpoint of a run with adapters (`config.adapter`) holds these alone, and so fits no run without them.
    """
    fields = dataclasses.asdict(config)
    run_time = ("dtype", "remat", "scan_layers", "max_position_embeddings")
    if not config.num_instruction_levels:  # checkpoints from before there were any say nothing of them
        run_time += ("num_instruction_levels",)
    with_adapter = {"adapter": adapter.to_dict()} if adapter and adapter.rank else {}
    return checkpoints.as_json({k: v for k, v in fields.items() if k not in run_time} | with_adapter)


def initial_params(
    model: decoder.Model,
    given: Mapping | Path | None,
    seed: int,
    device_mesh,
    rules=mesh.RULES,
    store: Callable[[str, jax.Array], Any] | None = None,
) -> Any:
    """Parameters placed on the mesh: what a tree or a Hugging Face directory gives, and drawn from the seed the rest.

    `store(name, array)` is what becomes of each (see `stored_base`); a directory is read tensor by tensor, and each
    parameter stored before the next is read.
    """
    key = jax.random.key(seed)
    shapes = jax.eval_shape(model.init, key)
    shardings = mesh.parameter_sharding(device_mesh, shapes, rules)

    def stored(name: str, array: jax.Array) -> Any:
        if store is None:
            return array
        convert = functools.partial(store, name)
        placed = mesh.parameter_sharding(device_mesh, {name: jax.eval_shape(convert, array)}, rules)
        return jax.jit(convert, out_shardings=placed[name])(array)

    if isinstance(given, Path):
        theirs = jax.eval_shape(decoder.build(hugging_face.load_config(given)).init, key)
        given = hugging_face.load(given, "float32", mesh.parameter_sharding(device_mesh, theirs, rules), stored)[1]
    elif given is not None:
        given = jax.tree_util.tree_map_with_path(
            lambda path, shape, sharding: (
                None
                if (array := _at(given, path)) is None
                else stored(path[-1].key, jax.device_put(array.astype(shape.dtype), sharding))
            ),
            shapes,
            shardings,
        )
    missing = [path for path, _ in jax.tree_util.tree_leaves_with_path(shapes) if _at(given, path) is None]
    draw = jax.jit(  # what is not asked for is not computed
        lambda key: [_at(model.init(key), path) for path in missing],
        out_shardings=[_at(shardings, path) for path in missing],
    )
    drawn = dict(zip(missing, draw(key), strict=True)) if missing else {}
    return jax.tree_util.tree_map_with_path(
        lambda path, _: stored(path[-1].key, drawn[path]) if path in drawn else _at(given, path), shapes
    )


def make_adapter(config: ConfigDict) -> lora.Adapter | None:
    """The adapters that the config asks for, if any."""
    settings = config.adapter.to_dict()
    form = settings.pop("quantize")
    if not settings["rank"]:
        return None
    try:
        if form and form not in quantized.FORMATS:
            raise ValueError(f"quantize must be one of {quantized.FORMATS}, got {form!r}")
        return lora.Adapter(**settings | {"targets": tuple(settings["targets"])})
    except ValueError as error:
        raise ValueError(f"config.adapter: {error}") from None


def stored_base(config: ConfigDict) -> Callable[[str, jax.Array], Any] | None:
    """How a frozen model is kept under adapters: its matrices quantised if asked for, the rest in `model.dtype`."""
    if not config.adapter.rank:
        return None

    def store(name: str, array: jax.Array) -> Any:
        if config.adapter.quantize and name in lora.MATRICES:
            return quantized.quantize(array, config.adapter.quantize)
        return array if name == "reward_head" else array.astype(config.model.dtype)

    return store


def adapters_on(config: ConfigDict, adapter: lora.Adapter, model: decoder.Model, base: Any, device_mesh) -> Any:
    """The first values of the adapters, placed on the mesh."""
    make = functools.partial(lora.init, adapter, model.config)
    key = jax.random.key(config.seed + 2)
    try:
        if config.checkpoints.export_hugging_face:
            lora.check_layout(adapter, model.config)
        shardings = mesh.parameter_sharding(device_mesh, jax.eval_shape(make, base, key))
    except ValueError as error:
        raise ValueError(f"config.adapter: {error}") from None
    return jax.jit(make, out_shardings=shardings)(base, key)


def sharding_rules(config: ConfigDict, model: decoder.Model) -> Mapping[str, Any]:
    """How the parameters of this model lie on the mesh: the table of `mesh.RULES` with the config's changes."""
    mesh.check_rules(config.mesh.rules, jax.eval_shape(model.init, jax.random.key(0)))
    return mesh.make_rules(config.mesh.rules)


def with_value_model(model: decoder.Model, params: Any, seed: int, device_mesh, rules=mesh.RULES) -> Any:
    """The parameters with a value model beside them (`heads.add_value_model`), placed on the mesh."""

    def add(params):
        return heads.add_value_model(model.config, params, jax.random.fold_in(jax.random.key(seed), 1))

    shardings = mesh.parameter_sharding(device_mesh, jax.eval_shape(add, params), rules)
    return jax.jit(add, out_shardings=shardings)(params)


def initial_state(
    params: Any, moving: Any, tx, memory: Callable[[Any], dict[str, Any]], seed: int, device_mesh, rules=mesh.RULES
) -> tuple[Any, Any, Any]:
    """(the train state before its first step, its shapes, its shardings), placed on the mesh.

    `moving` is a reference that changes, and so belongs to the state; None for one that does not. `memory(params)` is
    that of the stateful methods.
    """

    def create(params, reference):
        return state.create(params, tx, memory(params), rng=jax.random.key(seed + 1), reference=reference)

    abstract = jax.eval_shape(create, params, moving)
    shardings = mesh.parameter_sharding(device_mesh, abstract, rules)
    return jax.jit(create, out_shardings=shardings)(params, moving), abstract, shardings


def load_params(
    key: str, directory: str, model: decoder.Model, device_mesh, rules=mesh.RULES, step: int | None = None
) -> Any:
    """Parameters of a finished run (its WORKDIR) or of a Hugging Face directory, of this model, on the mesh.

    Of a run the newest, or those of `step` where its checkpoint was kept; that may be said as WORKDIR/checkpoints/STEP.
    """
    path, named = _run_and_step(directory)
    step = named if step is None else step
    if (path / "checkpoints").is_dir():
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        abstract = checkpoints.abstract(shapes, mesh.parameter_sharding(device_mesh, shapes, rules))
        return checkpoints.restore_params(path / "checkpoints", abstract, describe_model(model.config), step)
    if not (path / "config.json").is_file():
        raise ValueError(
            f"{key}: {directory} is neither the WORKDIR of a finished run (with checkpoints/) nor a Hugging Face "
            "directory (with config.json)"
        )
    ours, theirs = describe_model(model.config), describe_model(hugging_face.load_config(directory))
    if differing := [k for k in ours if k != "reward_heads" and ours[k] != theirs.get(k)]:
        raise ValueError(f"{key}: {directory} is of another model, which differs in {', '.join(differing)}")
    return initial_params(model, path, 0, device_mesh, rules)


def _run_and_step(directory: str) -> tuple[Path, int | None]:
    """(WORKDIR, STEP) of WORKDIR/checkpoints/STEP; of all else (directory, None)."""
    path = Path(directory)
    if path.parent.name == "checkpoints" and path.name.isdigit():
        return path.parent.parent, int(path.name)
    return path, None


def config_of_run(key: str, directory: str) -> ConfigDict:
    """The config of a finished run's WORKDIR, or one that names a Hugging Face directory."""
    path, _ = _run_and_step(directory)
    if (path / "result.json").is_file():
        config = ConfigDict(json.loads((path / "result.json").read_text())["config"])
    else:
        config = common.base()
        config.model.hugging_face = directory
        if not (path / "config.json").is_file():
            raise ValueError(
                f"{key}: {directory} is neither the WORKDIR of a finished run nor a Hugging Face directory"
            )
    return config


def load_run(key: str, directory: str, device_mesh) -> tuple[ConfigDict, Any, decoder.Model, Any]:
    """(config, tokenizer, model, parameters) of a finished run's WORKDIR or of a Hugging Face directory."""
    config = config_of_run(key, directory)
    tokenizer = load_tokenizer(config)
    model, _ = build_model(config, tokenizer.vocab_size)
    if config.model.get("output_heads"):
        model = multi_head.wrap(model, config.model.output_heads)
    return config, tokenizer, model, load_params(key, directory, model, device_mesh)


def load_tokenizer(config: ConfigDict) -> Any:
    directory, length = config.data.tokenizer or config.model.hugging_face, config.model.get("control_tokens")
    plain = tokenizers.ByteTokenizer() if directory in ("", "bytes") else tokenizers.HuggingFaceTokenizer(directory)
    return controls.ControlTokenizer(plain, length) if length else plain


def reference_params(config: ConfigDict, before: Path, model: decoder.Model, start: Any, device_mesh) -> Any:
    """The parameters that the reference begins with: those of the start, or a soup.

    They are in arrays of their own, since the start's are trained in place; under adapters the start is frozen, and the
    reference is that very model with the adapters switched off.
    """
    mean = None
    for count, directory in enumerate(config.reference.soup, 1):
        named = directory.replace("BEFORE", str(before))
        params = load_params("config.reference.soup", named, model, device_mesh, sharding_rules(config, model))
        mean = params if mean is None else references.model_soup(mean, params, alpha=1 / count)
    if mean is None:
        return start if config.adapter.rank else jax.tree.map(jnp.copy, start)
    return references.model_soup(start, mean, alpha=config.reference.soup_weight)


def _at(tree: Mapping | None, path: tuple) -> Any:
    for key in path:
        tree = tree.get(key.key) if isinstance(tree, Mapping) else None
    return tree
