"""One side of the comparison of training steps: measures in a process of its own and prints one line of JSON.

    python -m benchmarks.train_step --side=ours --work=dpo --files=DIR

`benchmarks.compare` writes DIR and starts these. Sides: ours, full_logits (ours with every logit made and kept), trl,
tunix (under a Python of its own: it needs another jax). Works: dpo and sft. All sides read the same weights and tokens,
use AdamW without decay at one rate, clip at 1 and stay in float32; their losses of the first steps are reported, to be
compared before any time is.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path

from absl import app, flags

from benchmarks import side_by_side

_SIDE = flags.DEFINE_enum("side", None, ["ours", "full_logits", "trl", "tunix"], "which worker to be")
_WORK = flags.DEFINE_enum("work", "dpo", ["dpo", "sft"], "what a step trains")
_FILES = flags.DEFINE_string("files", None, "the directory of weights and tokens")
_STEPS = flags.DEFINE_integer("steps", 4, "timed steps, after two to warm up")
BETA, RATE, WARM_UP = 0.1, 1e-4, 2


def read_tokens(files: Path) -> dict:
    """{"prompt", "chosen", "rejected"} or {"row"}: token ids [steps, rows, length]."""
    return json.loads((files / "tokens.json").read_text())


# ---------------------------------------------------------------------------------------------------------------- ours


def our_batches(files: Path, work: str) -> list[dict]:
    import numpy as np

    from alignment.data import collating, rows

    tokens, batches = read_tokens(files), []
    if work == "sft":
        for step in tokens["row"]:
            examples = [rows.Tokenized(i, np.array(r[:1]), (np.array(r[1:]),)) for i, r in enumerate(step)]
            batches.append(collating.collate_packed([[e] for e in examples], len(step[0])))
        return batches
    for prompts, chosen, rejected in zip(*(tokens[k] for k in ("prompt", "chosen", "rejected")), strict=True):
        examples = [
            rows.Tokenized(i, np.array(p), (np.array(c), np.array(r)))
            for i, (p, c, r) in enumerate(zip(prompts, chosen, rejected, strict=True))
        ]
        batches.append(collating.collate_trees(examples, len(prompts[0]), len(chosen[0]), 2))
    return batches


def full_logits_losses(model, work: str):
    """`step.make_losses` as one writes it down first: logits of every position, then log_softmax, then the label's."""
    import jax
    import jax.numpy as jnp

    from alignment import losses
    from alignment.statistics import completion_hidden

    def token_logps(params, batch):
        logits = model.unembed(params, completion_hidden(model, params, batch)[1])
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["targets"][..., None], axis=-1)[..., 0]
        return jnp.where(batch["mask"], picked, 0.0)

    def of_batch(params, frozen, method_state, batch):
        logps = token_logps(params, batch)
        if work == "sft":
            return {"sft": -logps.sum()}, {}, {}
        chosen, rejected = logps.sum(axis=-1).T
        reference = jax.lax.stop_gradient(token_logps(frozen["reference"], batch)).sum(axis=-1).T
        return {"dpo": losses.dpo(chosen, rejected, *reference, beta=BETA).sum()}, {}, {}

    return of_batch


def ours(files: Path, work: str, full: bool) -> None:
    import functools

    import jax
    import optax

    import alignment.losses
    from alignment import objective
    from alignment.models import decoder, hugging_face
    from alignment.training import state, step

    began = time.perf_counter()
    config, params = hugging_face.load(files / "model")
    model, params = decoder.build(config), jax.device_put(params)
    sides = ("",) if work == "sft" else ("chosen", "rejected")
    spec = {"sft": {"reduction": "token_mean"}} if work == "sft" else {"dpo": {"beta": BETA}}
    terms = objective.bind(spec, alignment.losses, "objective", sides, ())
    frozen = {}
    if work == "dpo":
        frozen = {"reference": jax.device_put(hugging_face.load(files / "reference")[1])}
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(RATE, weight_decay=0.0))
    make_losses = full_logits_losses(model, work) if full else step.make_losses(
        model, dict.fromkeys(frozen, model), terms, (), sides
    )  # fmt: skip
    train_step = jax.jit(step.make_step(make_losses, terms, (), sides, tx), donate_argnums=0)
    create = jax.jit(functools.partial(state.create, optimizer=tx, method_state={}), donate_argnums=0)
    train = create(params, rng=jax.random.key(1))
    del params
    seconds, losses = [], []
    for number, batch in enumerate(our_batches(files, work)):
        at = time.perf_counter()
        train, logs = train_step(train, frozen, batch)
        losses.append(float(logs["loss"]))
        jax.block_until_ready(train)
        seconds.append(time.perf_counter() - at)
        if number == 0:
            first = time.perf_counter() - began
    extra = {} if full else {"matmul": matmul_rate(), "flop": useful_flop(config, files, work)}
    side_by_side.report(_SIDE.value, seconds[WARM_UP:], warm_up=first, losses=losses, **extra)


def matmul_rate(size: int = 1536, repeats: int = 7) -> float:
    """The machine's own float32 matmul rate just now, in FLOP/s: a share of it says more than seconds."""
    import jax
    import numpy as np

    x = jax.device_put(np.random.default_rng(0).normal(size=(size, size)).astype(np.float32))
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    seconds = side_by_side.timed(lambda: product(x).block_until_ready(), repeats)
    return 2 * size**3 / sorted(seconds)[repeats // 2]


def useful_flop(config, files: Path, work: str) -> float:
    """What a step has to compute, nothing twice: forward once and backward twice, the reference forward once."""
    from alignment.training import costs

    batch = our_batches(files, work)[0]
    scored = batch["targets"].shape[1] * batch["targets"].shape[2]
    forward = sum(costs.forward_flops(config, *batch["tokens"].shape, scored).values())
    return forward * (3 + (work == "dpo"))


# ----------------------------------------------------------------------------------------------------------------- trl


def trl(files: Path, work: str) -> None:
    import datasets
    import torch
    import transformers
    import trl

    began = time.perf_counter()
    torch.set_num_threads(side_by_side.THREADS)
    tokens, ends = read_tokens(files), []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_, **__):
            ends.append(time.perf_counter())

    def load(name: str):
        return transformers.AutoModelForCausalLM.from_pretrained(files / name, dtype=torch.float32)

    rows = len(next(iter(tokens.values()))[0])
    settings = {
        "output_dir": str(files / "trl"), "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
        "report_to": [], "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "learning_rate": RATE,
        "lr_scheduler_type": "constant", "per_device_train_batch_size": rows, "max_grad_norm": 1.0,
        "max_steps": WARM_UP + _STEPS.value, "max_length": None, "optim": "adamw_torch", "train_sampling_strategy":
        "sequential",
    }  # fmt: skip
    rest = {
        "processing_class": transformers.AutoTokenizer.from_pretrained(files / "words" / "model"),
        "callbacks": [Clock()],
    }
    flat = {key: list(itertools.chain.from_iterable(value)) for key, value in tokens.items()}
    if work == "sft":
        dataset = datasets.Dataset.from_dict({"input_ids": flat["row"]})
        trainer = trl.SFTTrainer(load("model"), trl.SFTConfig(**settings), train_dataset=dataset, **rest)
    else:
        dataset = datasets.Dataset.from_dict({f"{k}_ids": v for k, v in flat.items()})
        # Tokens come as they are: the trainer's own tokenisation would be of text.
        trl.DPOTrainer._prepare_dataset = lambda self, dataset, *_, **__: dataset
        trainer = trl.DPOTrainer(
            load("model"), load("reference"), trl.DPOConfig(beta=BETA, **settings), train_dataset=dataset, **rest
        )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    seconds = [b - a for a, b in itertools.pairwise(ends)][WARM_UP - 1 :]
    side_by_side.report("trl", seconds, warm_up=ends[0] - began, losses=losses)


# --------------------------------------------------------------------------------------------------------------- tunix


def tunix(files: Path, work: str) -> None:
    import numpy as np
    import optax
    from tunix.sft import hooks
    from tunix.sft.dpo import dpo_trainer

    if work != "dpo":
        raise ValueError("tunix is measured on DPO only")
    began = time.perf_counter()
    tokens, pulls, losses = read_tokens(files), [], []

    def stream():
        for prompt, chosen, rejected in zip(*(tokens[k] for k in ("prompt", "chosen", "rejected")), strict=True):
            pulls.append(time.perf_counter())
            arrays = {}
            for name, ids in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
                arrays[f"{name}_ids"] = np.array(ids, np.int32)
                arrays[f"{name}_mask"] = np.ones(arrays[f"{name}_ids"].shape, bool)
            yield dpo_trainer.TrainingInput(**arrays)
        pulls.append(time.perf_counter())

    class Losses(hooks.TrainingHooks):
        def on_train_start(self, *_, **__): ...
        def on_train_end(self, *_, **__): ...
        def on_train_step_start(self, *_, **__): ...
        def on_train_step_end(self, trainer, step, loss, *_, **__):
            losses.append(float(loss))

        def on_eval_step_start(self, *_, **__): ...
        def on_eval_step_end(self, *_, **__): ...

    (_, mesh, policy), (_, _, reference) = (side_by_side.load_tunix(files / name) for name in ("model", "reference"))
    with mesh:
        trainer = dpo_trainer.DPOTrainer(
            policy, reference, optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(RATE, weight_decay=0.0)),
            # One step at a time, so that the time between two pulls of data is that of a step.
            dpo_trainer.DPOTrainingConfig(
                beta=BETA, eval_every_n_steps=10**6, max_steps=WARM_UP + _STEPS.value + 1, max_inflight_computations=1
            ),
        )  # fmt: skip
        trainer.with_training_hooks(Losses())
        trainer.train(stream())
    seconds = [b - a for a, b in itertools.pairwise(pulls)]
    side_by_side.report("tunix", seconds[WARM_UP:], warm_up=pulls[1] - began, losses=losses)


def main(_) -> None:
    files, work = Path(_FILES.value), _WORK.value
    if _SIDE.value == "trl":
        trl(files, work)
    elif _SIDE.value == "tunix":
        tunix(files, work)
    else:
        ours(files, work, full=_SIDE.value == "full_logits")


if __name__ == "__main__":
    if any(argument.startswith("--side=") for argument in sys.argv):
        side_by_side.start_worker()
    flags.mark_flags_as_required(["side", "files"])
    app.run(main)
