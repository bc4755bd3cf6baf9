"""Tokens per second of guided decoding (two models of one size) beside plain decoding, in one process.

    python -m benchmarks.guided [--repeats=5 --batch=16 --prompt=32 --completion=32]

The model of the other benchmarks (vocabulary 8192, width 256, 4 layers), random weights, temperature 1. Every repeat
runs plain, guided and with a scorer of ten candidates, one after the other, so that a machine that gets slower gets
slower for all. A guided token costs a forward pass of each model: about half the tokens per second is what to expect.
"""

from __future__ import annotations

import statistics

from absl import app, flags

from benchmarks import side_by_side

_REPEATS = flags.DEFINE_integer("repeats", 5, "timed repeats, after one to compile")
_BATCH = flags.DEFINE_integer("batch", 16, "prompts")
_PROMPT = flags.DEFINE_integer("prompt", 32, "tokens of each prompt")
_COMPLETION = flags.DEFINE_integer("completion", 32, "tokens of each completion")


def main(_) -> None:
    import jax
    import numpy as np

    from alignment.decoding import combinations, guided, sampler
    from alignment.models import decoder, heads

    config = decoder.DecoderConfig(**side_by_side.SHAPE)
    model = decoder.build(config)
    base, tuned, third = (jax.jit(model.init)(jax.random.key(i)) for i in range(3))
    judge_config, judge_params = heads.add_reward_heads(config, third, jax.random.key(3))
    judge = decoder.build(judge_config)
    prompts = np.random.default_rng(0).integers(2, side_by_side.VOCABULARY, (_BATCH.value, _PROMPT.value))
    drawing = {"max_new_tokens": _COMPLETION.value, "eos_id": side_by_side.EOS, "pad_id": side_by_side.PAD}
    keys = iter(range(10**6))

    def combine(logits):
        return combinations.rlg(logits["base"], logits["tuned"], scale=1.5)

    def tilt(logits, candidates, scores):
        return combinations.args(logits, candidates, scores[..., 0], weight=1.0)

    def inputs():
        return prompts, np.ones(prompts.shape, bool), jax.random.key(next(keys))

    two = {"base": model, "tuned": model}, {"base": base, "tuned": tuned}
    scorer = sampler.Scorer(judge, judge_params, 10, tilt, {})
    sides = {
        "plain": lambda: sampler.sample(model, base, *inputs(), **drawing),
        "guided": lambda: guided.sample(*two, combine, *inputs(), **drawing),
        "scorer of 10": lambda: guided.sample(
            {"base": model}, {"base": base}, sampler.only, *inputs(), scorer=scorer, **drawing
        ),
    }

    def once(name):
        return side_by_side.timed(lambda: jax.block_until_ready(sides[name]()), 1)[0]

    warm_up = {name: once(name) for name in sides}
    seconds = {name: [] for name in sides}
    for _ in range(_REPEATS.value):
        for name in sides:
            seconds[name].append(once(name))
    print(f"## Guided decoding, {_BATCH.value} prompts of {_PROMPT.value} tokens, {_COMPLETION.value} tokens each\n")
    print("| side | seconds | fastest | tokens/s | of plain | first after |\n|---|---|---|---|---|---|")
    medians = {name: statistics.median(s) for name, s in seconds.items()}
    for name, median in medians.items():
        speed = _BATCH.value * _COMPLETION.value / median
        print(
            f"| {name} | {median:.3f} | {min(seconds[name]):.3f} | {speed:,.0f} | {medians['plain'] / median:.2f} "
            f"| {warm_up[name]:.1f} s |"
        )


if __name__ == "__main__":
    side_by_side.start_worker()
    app.run(main)
