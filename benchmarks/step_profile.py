"""Where the time of the DPO step of `benchmarks.compare` goes, beside the rate of the products it is made of.

    python -m benchmarks.step_profile [--steps=10]

Prints markdown. One process; medians. GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in front of it asks Linux for huge pages.
"""

from __future__ import annotations

import resource
import statistics

from absl import app, flags

from benchmarks import side_by_side

_STEPS = flags.DEFINE_integer("steps", 10, "timed steps, after three to warm up")
ROWS, PROMPT, COMPLETION = 8, 128, 128


def main(_) -> None:
    import functools

    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    import alignment.losses
    from alignment import objective
    from alignment import statistics as scoring
    from alignment.data import collating, rows
    from alignment.models import decoder
    from alignment.training import costs, state, step

    rng, sides = np.random.default_rng(0), ("chosen", "rejected")
    config = decoder.DecoderConfig(**side_by_side.SHAPE)
    model = decoder.build(config)
    examples = [
        rows.Tokenized(
            i, rng.integers(2, side_by_side.VOCABULARY, PROMPT),
            tuple(rng.integers(2, side_by_side.VOCABULARY, (2, COMPLETION))),
        )
        for i in range(ROWS)
    ]  # fmt: skip
    batch = collating.collate_trees(examples, PROMPT, COMPLETION, 2)
    params, reference = (jax.jit(model.init)(jax.random.key(seed)) for seed in (0, 1))
    terms = objective.bind({"dpo": {"beta": 0.1}}, alignment.losses, "objective", sides, ())
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-4, weight_decay=0.0))
    losses = step.make_losses(model, {"reference": model}, terms, (), sides)
    train_step = jax.jit(step.make_step(losses, terms, (), sides, tx), donate_argnums=0)
    forward = costs.forward_flops(config, *batch["tokens"].shape, batch["targets"].shape[1] * batch["targets"].shape[2])

    def seconds_of(function, *arguments) -> float:
        compiled = jax.jit(function)
        jax.block_until_ready(compiled(*arguments))
        return statistics.median(side_by_side.timed(lambda: jax.block_until_ready(compiled(*arguments)), 7))

    def product(*sizes: int) -> str:
        a, b, c = sizes
        one, other = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((a, b), (b, c)))
        return f"{2 * a * b * c / seconds_of(jnp.matmul, one, other) / 1e9:.0f} GFLOP/s"

    print("## Profile of the DPO step\n\n| what | measured |\n|---|---|")
    columns, width, inner = batch["tokens"].size, config.hidden_size, config.intermediate_size
    shapes = [(1536,) * 3, (columns, width, inner), (columns, inner, width), (columns, width, width)]
    for sizes in shapes:
        print(f"| product {' x '.join(map(str, sizes))}, repeated | {product(*sizes)} |", flush=True)
    layers = seconds_of(lambda p: scoring.completion_hidden(model, p, batch)[1], params)
    of_layers = sum(flop for part, flop in forward.items() if part != "head")
    print(f"| forward pass of the layers | {1e3 * layers:.0f} ms, {of_layers / layers / 1e9:.0f} GFLOP/s |")
    print(f"| optimizer | {1e3 * seconds_of(tx.update, params, tx.init(params), params):.1f} ms |", flush=True)

    create = functools.partial(state.create, optimizer=tx, method_state={})
    train = jax.jit(create)(params, rng=jax.random.key(1))
    square, multiply = jnp.asarray(rng.normal(size=(1536, 1536)), jnp.float32), jax.jit(jnp.matmul)
    frozen, steps, first, warm, faults = {"reference": reference}, [], [], [], []

    def once():
        nonlocal train
        train, _ = train_step(train, frozen, batch)
        jax.block_until_ready(train)

    for number in range(3 + _STEPS.value):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        seconds = side_by_side.timed(once, 1)
        pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        products = side_by_side.timed(lambda: jax.block_until_ready(multiply(square, square)), 4)
        if number >= 3:
            steps += seconds
            faults.append(pages)
            first.append(products[0])
            warm += products[1:]
    whole, rates = statistics.median(steps), [2 * 1536**3 / statistics.median(times) for times in (first, warm)]
    flop = 4 * sum(forward.values())  # forward, twice that backward, and the reference's forward pass
    print(f"| whole step | {1e3 * whole:.0f} ms (fastest {1e3 * min(steps):.0f}), {flop / whole / 1e9:.0f} GFLOP/s |")
    print(f"| product 1536 x 1536 x 1536 between two steps: the first, the next three | {rates[0] / 1e9:.0f}, "
          f"{rates[1] / 1e9:.0f} GFLOP/s |")  # fmt: skip
    print(f"| share of the latter that the step reaches | {flop / whole / rates[1]:.0%} |")
    print(f"| page faults of a step | {statistics.median(faults):,.0f} |")


if __name__ == "__main__":
    side_by_side.start_worker()
    app.run(main)
