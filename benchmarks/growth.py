"""How cost grows with the work: time per token against rows, length, vocabulary, layers and group size; compile time.

    python -m benchmarks.growth [--divide=1]

Prints markdown. One process; each point is the median of five steps of DPO (for groups: of a policy gradient) after
one to compile. A token is one that is computed: a prompt counts once per row. Time per token may rise with length,
since attention is quadratic, and with layers and vocabulary; with rows and completions it should stay or fall. Compile
time is that of the step, with layers in a scan.
"""

from __future__ import annotations

import statistics

from absl import app, flags

from benchmarks import side_by_side

_DIVIDE = flags.DEFINE_integer("divide", 1, "divide all sizes by this, to try the command")


def measure(*, rows=8, prompt=128, completion=128, sides=2, vocabulary=8192, layers=4) -> tuple[float, float]:
    """(microseconds per computed token, seconds to compile) of one step."""
    import functools
    import time

    import jax
    import numpy as np
    import optax

    import alignment.losses
    import alignment.policy_gradients
    from alignment import objective
    from alignment.data import collating
    from alignment.data import rows as data
    from alignment.models import decoder
    from alignment.statistics import EACH
    from alignment.training import state, step

    model = decoder.build(
        decoder.DecoderConfig(**side_by_side.SHAPE | {"vocab_size": vocabulary, "num_layers": layers})
    )
    rng = np.random.default_rng(0)
    examples = [
        data.Tokenized(i, rng.integers(0, vocabulary, prompt), tuple(rng.integers(0, vocabulary, (sides, completion))))
        for i in range(rows)
    ]
    batch = collating.collate_trees(examples, prompt, completion, sides)
    if sides == 2:
        names = ("chosen", "rejected")
        terms = objective.bind({"dpo": {}}, alignment.losses, "objective", names, ())
    else:
        names = EACH
        batch["valid"] = np.repeat(batch["valid"][:, None], sides, axis=1)
        batch["behaviour_token_logps"] = np.zeros(batch["mask"].shape, np.float32) - 9.0
        batch["token_advantages"] = rng.normal(size=batch["mask"].shape).astype(np.float32)
        columns = ("behaviour_token_logps", "token_advantages")
        terms = objective.bind(
            {"ppo": {"reduction": "token_mean"}}, alignment.policy_gradients, "objective", names, columns
        )
    frozen = {"reference": model} if sides == 2 else {}
    tx = optax.adamw(1e-5)
    function = step.make_step(step.make_losses(model, frozen, terms, (), names), terms, (), names, tx)
    params = jax.jit(model.init)(jax.random.key(0))
    reference = jax.tree.map(jax.numpy.copy, {"reference": params} if frozen else {})
    train = jax.jit(functools.partial(state.create, optimizer=tx, method_state={}))(params, rng=jax.random.key(1))
    lowered = jax.jit(function, donate_argnums=0).lower(train, reference, batch)
    began = time.perf_counter()
    compiled = lowered.compile()
    compiling = time.perf_counter() - began
    holder = [jax.block_until_ready(compiled(train, reference, batch))[0]]

    def once():
        holder[0], _ = compiled(holder[0], reference, batch)
        jax.block_until_ready(holder[0])

    seconds = statistics.median(side_by_side.timed(once, 5))
    return 1e6 * seconds / (rows * (prompt + sides * completion)), compiling


def main(_) -> None:
    by = _DIVIDE.value
    base = {"prompt": 128 // by, "completion": 128 // by}
    curves = {
        "rows": [{"rows": n, **base} for n in (2, 4, 8, 16)],
        "length of prompt and of completions": [
            {"rows": 4, "prompt": n // by, "completion": n // by} for n in (64, 128, 256)
        ],
        "vocabulary": [{"vocabulary": n // by, **base} for n in (8192, 32768, 131072)],
        "layers": [{"layers": n, **base} for n in (2, 4, 8, 16)],
        "completions of a prompt (policy gradient)": [
            {"rows": 2, "sides": n, "prompt": 64 // by, "completion": 64 // by} for n in (1, 4, 8)
        ],
    }
    print("## Cost as work grows\n")
    print("| what grows | size | µs per token | to the first | seconds to compile |\n|---|---|---|---|---|")
    for what, points in curves.items():
        keys = {"rows": "rows", "vocabulary": "vocabulary", "layers": "layers"}
        key = keys.get(what, "sides" if "completions of" in what else "prompt")
        first = None
        for point in points:
            each, compiling = measure(**point)
            first = first or each
            print(f"| {what} | {point[key]:,} | {each:.1f} | {each / first:.2f} | {compiling:.1f} |", flush=True)


if __name__ == "__main__":
    side_by_side.start_worker()
    app.run(main)
