"""Tokens per second of the sampler and of `transformers` generate: the same weights, prompts and number of tokens.

    python -m benchmarks.sampling [--rounds=3 --repeats=3 --batch=64 --prompt=64 --completion=64]

Vocabulary 8192, width 256, 4 layers, 4 query and 2 key/value heads, SwiGLU 704, float32, random weights, temperature 1
over the whole vocabulary. An end token may come, as in use; neither side stops before all rows have ended. Ours also
returns the log-prob of every token, which generate is not asked for. First the likeliest completions of both sides are
compared. Measured by hand on an idle machine; needs the extra `parity`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

from benchmarks import side_by_side

_SIDE = flags.DEFINE_enum("side", "", ["", "ours", "transformers"], "which worker to be; none: drive both")
_FILES = flags.DEFINE_string("files", "", "for workers: the directory of weights and prompts")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "processes per side")
_REPEATS = flags.DEFINE_integer("repeats", 3, "timed repeats in each process, after one to warm up")
_BATCH = flags.DEFINE_integer("batch", 64, "prompts")
_PROMPT = flags.DEFINE_integer("prompt", 64, "tokens of each prompt")
_COMPLETION = flags.DEFINE_integer("completion", 64, "tokens of each completion")


def ours(files: Path) -> None:
    import jax
    import numpy as np

    from alignment.decoding import sampler
    from alignment.models import decoder, hugging_face

    config, params = hugging_face.load(files / "model")
    model, params = decoder.build(config), jax.device_put(params)
    prompts = np.array(side_by_side.prompt_ids(files), np.int32)
    keys = iter(range(1000))

    def draw(**settings):
        return sampler.sample(
            model, params, prompts, np.ones(prompts.shape, bool), jax.random.key(next(keys)),
            max_new_tokens=_COMPLETION.value, eos_id=side_by_side.EOS, pad_id=side_by_side.PAD, **settings,
        )  # fmt: skip

    likeliest = np.asarray(draw(temperature=0.0).tokens)
    began = time.perf_counter()
    jax.block_until_ready(draw())
    warm_up = time.perf_counter() - began
    seconds = side_by_side.timed(lambda: jax.block_until_ready(draw()), _REPEATS.value)
    side_by_side.report("ours", seconds, warm_up=warm_up, likeliest=likeliest.tolist())


def transformers(files: Path) -> None:
    import torch
    import transformers

    torch.set_num_threads(side_by_side.THREADS)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(files / "model", dtype=torch.float32).eval()
    prompts = torch.tensor(side_by_side.prompt_ids(files))

    @torch.inference_mode()
    def draw(**settings):
        return model.generate(
            prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=_COMPLETION.value,
            eos_token_id=side_by_side.EOS, pad_token_id=side_by_side.PAD, **settings,
        )[:, prompts.shape[1]:]  # fmt: skip

    likeliest = draw(do_sample=False)
    sampled = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    began = time.perf_counter()
    draw(**sampled)
    warm_up = time.perf_counter() - began
    seconds = side_by_side.timed(lambda: draw(**sampled), _REPEATS.value)
    side_by_side.report("transformers", seconds, warm_up=warm_up, likeliest=likeliest.tolist())


def main(_) -> None:
    if _SIDE.value:
        {"ours": ours, "transformers": transformers}[_SIDE.value](Path(_FILES.value))
        return
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch)
        side_by_side.write_files(files, _BATCH.value, _PROMPT.value)
        flags_of_work = [f"--completion={_COMPLETION.value}", f"--repeats={_REPEATS.value}", f"--files={files}"]
        reports = side_by_side.alternate("benchmarks.sampling", ("ours", "transformers"), _ROUNDS.value, *flags_of_work)
    rows = zip(reports["ours"][0]["likeliest"], reports["transformers"][0]["likeliest"], strict=True)
    same = sum(a == b for a, b in rows) / _BATCH.value
    print(json.dumps({"batch": _BATCH.value, "prompt": _PROMPT.value, "completion": _COMPLETION.value}))
    print(f"likeliest completions that are the same on both sides: {same:.0%}")
    # Two logits may be as good as equal, and then rounding decides for the rest of a completion.
    if same < 0.9:
        raise SystemExit("the two sides do not run the same model")
    side_by_side.table(reports, _BATCH.value * _COMPLETION.value)


if __name__ == "__main__":
    if any(argument.startswith("--side=") and argument != "--side=" for argument in sys.argv):
        side_by_side.start_worker()
    app.run(main)
