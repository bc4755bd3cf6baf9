"""Tokens per second of the sampler, of `transformers` generate and of Tunix's sampler: the same weights and prompts.

    python -m benchmarks.sampling [--rounds=3 --repeats=3 --divide=1] [--tunix_python=VENV/bin/python]

Prints markdown. 64 prompts of 64 tokens, 64 tokens each. Vocabulary 8192, width 256, 4 layers, 4 query and 2 key/value
heads, SwiGLU 704, float32, random weights, temperature 1 over the whole vocabulary. An end token may come, as in use;
no side stops before all rows have ended. Ours also returns the log-prob of every token, which the peers are not asked
for. First the likeliest completions of all sides are compared. `transformers` comes with the extra `parity`; Tunix
needs an environment of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

from benchmarks import side_by_side

_SIDE = flags.DEFINE_enum("side", "", ["", "ours", "transformers", "tunix"], "which worker to be; none: drive all")
_FILES = flags.DEFINE_string("files", "", "for workers: the directory of weights and prompts")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "processes per side")
_REPEATS = flags.DEFINE_integer("repeats", 3, "timed repeats in each process, after one to warm up")
_DIVIDE = flags.DEFINE_integer("divide", 1, "divide the 64 prompts and tokens by this, to try the command")
_TUNIX = flags.DEFINE_string("tunix_python", "", "the Python of an environment with google-tunix; empty: leave it out")
WANTED = {"transformers": (2.5, None), "tunix": (2.0, None)}


def size() -> int:
    return 64 // _DIVIDE.value


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
            max_new_tokens=size(), eos_id=side_by_side.EOS, pad_id=side_by_side.PAD, **settings,
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
            prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=size(),
            eos_token_id=side_by_side.EOS, pad_token_id=side_by_side.PAD, **settings,
        )[:, prompts.shape[1]:]  # fmt: skip

    likeliest = draw(do_sample=False)
    sampled = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    began = time.perf_counter()
    draw(**sampled)
    warm_up = time.perf_counter() - began
    seconds = side_by_side.timed(lambda: draw(**sampled), _REPEATS.value)
    side_by_side.report("transformers", seconds, warm_up=warm_up, likeliest=likeliest.tolist())


def tunix(files: Path) -> None:
    from tunix.generate import sampler

    class Words:
        """The tokenizer of `side_by_side.write_files`, by the five methods that Tunix asks for."""

        def encode(self, text, **_):
            return [int(word[1:]) for word in text.split()]

        def decode(self, ids, **_):
            return " ".join(f"w{i}" for i in ids)

        def bos_id(self):
            return None

        def eos_id(self):
            return side_by_side.EOS

        def pad_id(self):
            return side_by_side.PAD

    config, mesh, model = side_by_side.load_tunix(files / "model")
    texts = [json.loads(line)["prompt"] for line in (files / "prompts.jsonl").read_text().splitlines()]
    with mesh:
        heads = {"num_kv_heads": config.num_kv_heads, "head_dim": config.head_dim}
        cache = sampler.CacheConfig(cache_size=2 * size(), num_layers=config.num_layers, **heads)
        draws = sampler.Sampler(model, Words(), cache)
        seeds = iter(range(1000))

        def draw(**settings):
            return draws(texts, size(), max_prompt_length=size(), **settings).tokens

        likeliest = [[int(i) for i in row] for row in draw()]
        sampled = {"temperature": 1.0, "top_p": 1.0}
        began = time.perf_counter()
        draw(seed=next(seeds), **sampled)
        warm_up = time.perf_counter() - began
        seconds = side_by_side.timed(lambda: draw(seed=next(seeds), **sampled), _REPEATS.value)
    side_by_side.report("tunix", seconds, warm_up=warm_up, likeliest=likeliest)


def main(_) -> None:
    if _SIDE.value:
        {"ours": ours, "transformers": transformers, "tunix": tunix}[_SIDE.value](Path(_FILES.value))
        return
    pythons = {"ours": "", "transformers": "", **({"tunix": _TUNIX.value} if _TUNIX.value else {})}
    print(f"## Sampling, {size()} prompts of {size()} tokens, {size()} tokens each\n")
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch)
        side_by_side.write_files(files, size(), size())
        flags_of_work = [f"--divide={_DIVIDE.value}", f"--repeats={_REPEATS.value}", f"--files={files}"]
        reports = side_by_side.alternate("benchmarks.sampling", pythons, _ROUNDS.value, *flags_of_work)
    for side in list(pythons)[1:]:
        rows = zip(reports["ours"][0]["likeliest"], reports[side][0]["likeliest"], strict=True)
        same = sum(a == b for a, b in rows) / size()
        # Two logits may be as good as equal, and then rounding decides for the rest of a completion.
        if same < 0.9:
            raise SystemExit(
                f"ours and {side} do not run the same model: {same:.0%} of the likeliest completions agree"
            )
        print(f"Likeliest completions that are the same here and with {side}: {same:.0%}.")
    print("", *side_by_side.table(reports, size() * size(), WANTED), sep="\n")


if __name__ == "__main__":
    if any(argument.startswith("--side=") and argument != "--side=" for argument in sys.argv):
        side_by_side.start_worker()
    app.run(main)
