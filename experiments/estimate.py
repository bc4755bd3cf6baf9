"""Says what a config will take of every device, before it is run: memory, work, traffic and the least time of a step.

    python -m experiments.estimate --config=configs/dpo.py [--hardware=v5p-128] [--model=8b] [--config.k=v ...]
    python -m experiments.estimate --page=docs/scale.md

Nothing is compiled and no weight is read. `--model` puts the shape of a public model in the place of the config's; the
mesh is the config's, its -1 filled with the hardware's devices. `--page` writes the tables of docs/scale.md. The
formulas, and what they leave out, stand in alignment/training/costs.py.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict

import alignment.losses
import alignment.metrics
import alignment.policy_gradients
from alignment import objective, statistics
from alignment.models import decoder
from alignment.training import costs, mesh
from configs import common
from experiments import command, from_config

# Llama 3.1's shapes (Grattafiori et al. 2024, arXiv:2407.21783).
MODELS = {
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_layers": 32, "num_heads": 32},
    "70b": {"hidden_size": 8192, "intermediate_size": 28672, "num_layers": 80, "num_heads": 64},
}
LLAMA = {"num_kv_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072}


def mesh_shape(section: Mapping, devices: int) -> dict[str, int]:
    """The config's mesh with its -1 filled; ValueError if it does not give the hardware's devices."""
    # `make_mesh` checks and fills; it only counts the devices, so that numbers will do.
    return {a: int(n) for a, n in mesh.make_mesh(section, list(range(devices))).shape.items()}


def model_config(config: ConfigDict, model: str) -> decoder.DecoderConfig:
    run_time = {"dtype": config.model.dtype, "remat": config.model.remat, "reward_heads": config.model.reward_heads}
    if model:
        if model not in MODELS:
            raise ValueError(f"--model={model}: not one of {', '.join(MODELS)}")
        return decoder.DecoderConfig(**LLAMA, **MODELS[model], **run_time)
    tokenizer = from_config.load_tokenizer(config)
    return from_config.build_model(config, tokenizer.vocab_size)[0].config


def frozen_models(config: ConfigDict) -> int:
    """Models that a step scores besides the policy: the reference, if a kernel names it and it is not stored."""
    named = objective.union(alignment.losses, alignment.policy_gradients)
    kernels = [getattr(named, settings.get("kernel", key)) for key, settings in config.objective.items()]
    functions = [getattr(kernel, "loss", kernel) for kernel in kernels]
    names = []
    for function in functions:
        names += [n for n in statistics.arguments_of(function) if n != "state"]
    models = statistics.needs_of(n for n in names if _is_statistic(n)).models
    return len(models) * (not config.get("precompute_reference", False))


def _is_statistic(name: str) -> bool:
    try:
        statistics.parse(name)
    except ValueError:  # a column that an estimator gives
        return False
    return True


def work_of(config: ConfigDict) -> tuple[costs.Work, tuple[int, int]]:
    """(what a step is fed, (sequences, columns) of the cache that sampling needs)."""
    data, rest = config.data, {"accumulate": config.training.accumulate, "frozen": frozen_models(config)}
    rest["chunk"] = config.training.vocabulary_chunk or None
    if "rollout" in config:
        prompts, group = config.rollout.prompts, config.rollout.group_size
        scored = group * data.completion_length
        # Frozen models score a rollout once, before its optimizer steps.
        work = costs.Work(prompts // config.training.minibatches, data.prompt_length + scored, scored, **rest)
        return work, (prompts * group, data.prompt_length + data.completion_length - 1)
    if data.packed:
        return costs.Work(data.batch_size, data.packed_length, data.packed_length, **rest), (0, 0)
    # A list's length is known from the data only.
    sides = len(from_config.SIDES[data.kind]) if data.kind != "lists" else 4
    scored = sides * data.completion_length
    return costs.Work(data.batch_size, data.prompt_length + scored, scored, **rest), (0, 0)


def amount(value: float, unit: str) -> str:
    """Three digits and a prefix: 1.23 GB, 4.5 ms."""
    if not value:
        return f"0 {unit}"
    thousands = min(max(math.floor(math.log10(value) / 3), -2), 5)
    return f"{value / 1000**thousands:.3g} {('µ', 'm', '', 'k', 'M', 'G', 'T', 'P')[thousands + 2]}{unit}"


def table(found: costs.Costs, shape: Mapping[str, int], hardware: costs.Hardware) -> list[tuple[str, str]]:
    seconds = costs.step_seconds(found, shape, hardware)
    slowest = max(seconds, key=seconds.get)
    fits = "fits" if found.total_memory <= 0.9 * hardware.memory else "DOES NOT FIT"
    rows = [(name, amount(value, "B")) for name, value in found.memory.items() if value]
    rows += [
        ("memory, together", f"{amount(found.total_memory, 'B')} of {amount(hardware.memory, 'B')}: {fits}"),
        ("logits not kept", amount(found.logits_saved, "B")),
        ("work", amount(found.flops, "FLOP")),
    ]
    rows += [(f"sent over {axis}", amount(value, "B")) for axis, value in found.traffic.items() if value]
    rows += [(f"{name} takes at least", amount(value, "s")) for name, value in seconds.items() if value]
    return [*rows, ("a step takes at least", f"{amount(seconds[slowest], 's')} ({slowest})")]


def estimate(config: ConfigDict, hardware: costs.Hardware, model: str) -> tuple[str, list[tuple[str, str]]]:
    """(what is estimated, the table) per device of the hardware."""
    if config.get("adapter", {}).get("rank"):
        raise ValueError("config.adapter.rank: the estimate is of runs that train all parameters; set it to 0")
    described = model_config(config, model)
    shape = mesh_shape(config.mesh, hardware.devices)
    work, cache = work_of(config)
    found = costs.costs(described, work, shape, cache=cache, rules=mesh.make_rules(config.mesh.rules))
    title = (
        f"{found.parameters:,} parameters, {work.rows} rows of {work.columns} tokens ({work.scored} scored), "
        f"{work.frozen} frozen model(s), {described.dtype}, remat {described.remat}, {hardware.name}, mesh "
        + " x ".join(f"{a} {n}" for a, n in shape.items())
    )
    return title, table(found, shape, hardware)


# --- docs/scale.md ---------------------------------------------------------------------------------------------------

PAGE = """# Scale, on paper

What DPO at 8B and 70B takes of every device of a v5p-128 (64 chips; the name counts TensorCores) and of 64 H100. This
page is printed by `python -m experiments.estimate --page=docs/scale.md`, and a test compares it with what the command
prints. Nothing here was measured on these machines. Times are bounds: what the slowest of compute, memory and network
takes at the vendor's peak, so a real step takes longer. For any config:

```bash
python -m experiments.estimate --config=configs/dpo.py --hardware=v5p-128 --model=8b --config.mesh.fsdp=32
```

The formulas are in the docstring of [alignment/training/costs.py](../alignment/training/costs.py), and
[tests/training/test_costs.py](../tests/training/test_costs.py) holds them to compiled programs on eight virtual
devices: parameters, bytes of the train state and activations kept per layer are exact; work is within 15 % of what XLA
counts, and what is sent within 40 % of the collectives in the program.

Each step has {pairs} pairs of 512 prompt and 2 x 512 completion tokens; the prompt is computed once per pair.
Parameters, gradients and Adam's moments are float32 (16 bytes per parameter, and 4 for the reference), the computation
is bfloat16 and layers are recomputed (remat full). GPUs that are eight to a node want the axis that sends most inside
it: fsdp over 64 GPUs is bound by the network between nodes.
"""
CASES = [
    ("8b", "v5p-128", {"data": 1, "fsdp": 64, "tensor": 1}, "full"),
    ("8b", "h100-64", {"data": 8, "fsdp": 8, "tensor": 1}, "full"),
    ("8b", "h100-64", {"data": 1, "fsdp": 64, "tensor": 1}, "full"),
    ("70b", "v5p-128", {"data": 1, "fsdp": 64, "tensor": 1}, "full"),
    ("70b", "v5p-128", {"data": 1, "fsdp": 16, "tensor": 4}, "full"),
    ("70b", "h100-64", {"data": 1, "fsdp": 64, "tensor": 1}, "full"),
    ("70b", "h100-64", {"data": 1, "fsdp": 8, "tensor": 8}, "full"),
]


def page(pairs: int = 128) -> str:
    config = common.preference({"dpo": {"weight": 1.0, "beta": 0.1}})
    config.data.batch_size, config.data.prompt_length, config.data.completion_length = pairs, 512, 512
    config.model.dtype = "bfloat16"
    text = PAGE.format(pairs=pairs)
    for model in MODELS:
        columns = []
        for name, hardware, shape, remat in CASES:
            if name == model:
                config.mesh.update(shape)
                config.model.remat = remat
                columns.append(
                    (costs.HARDWARE[hardware], shape, dict(estimate(config, costs.HARDWARE[hardware], name)[1]))
                )
        rows = list(dict.fromkeys(key for _, _, column in columns for key in column))
        text += f"\n## {model.upper()}\n\n| per device | "
        text += " | ".join(
            f"{h.name}, " + " x ".join(f"{a} {n}" for a, n in shape.items() if n > 1) for h, shape, _ in columns
        )
        text += " |\n|---|" + "---|" * len(columns) + "\n"
        text += "".join(f"| {r} | " + " | ".join(c.get(r, "") for _, _, c in columns) + " |\n" for r in rows)
    return text


# --config is defined by the script that the config is for.
_HARDWARE = flags.DEFINE_enum("hardware", "h100-1", list(costs.HARDWARE), "What it is to run on.")
_MODEL = flags.DEFINE_string("model", "", f"A public model's shape: {', '.join(MODELS)}; empty: the config's.")
_PAGE = flags.DEFINE_string("page", "", "Write the page of tables to this file, and do nothing else.")


def main(_) -> None:
    try:
        if _PAGE.value:
            Path(_PAGE.value).write_text(page())
            return
        if command.CONFIG.value is None:
            raise ValueError("--config: missing; the config whose run is to be estimated")
        title, rows = estimate(command.CONFIG.value, costs.HARDWARE[_HARDWARE.value], _MODEL.value)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(title)
    for name, value in rows:
        print(f"  {name:24} {value}")


if __name__ == "__main__":
    app.run(main)
