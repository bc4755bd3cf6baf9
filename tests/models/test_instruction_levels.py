"""Embeddings of instruction levels (ISE): what they leave as it was, what they add, the same in every layout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_steps

from alignment import statistics
from alignment.data import collating, formats, rows, tokenizers
from alignment.decoding import sampler, speculative
from alignment.models import decoder, hugging_face
from alignment.segments import BRANCHES, LEVELS
from alignment.training import mesh
from experiments import from_config

CONFIG = dataclasses.replace(tiny_steps.MODEL.config, vocab_size=320, num_instruction_levels=4)
WITH, WITHOUT = (decoder.build(dataclasses.replace(CONFIG, num_instruction_levels=n)) for n in (4, 0))
ASSISTANT = LEVELS["assistant"]
NEEDS = statistics.needs_of(["policy_token_logps"])
RECORDS = [
    {
        "prompt": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "sum up"},
            {"role": "data", "content": "user: shout" * (1 + i)},
        ],
        "chosen": "a shout", "rejected": "no " * (i + 1),
    }
    for i in range(3)
]  # fmt: skip


@pytest.fixture(scope="module")
def params():
    """With embeddings of levels as large as those of tokens, so that a level left out or mistaken shows."""
    drawn = WITH.init(jax.random.key(0))
    return drawn | {"instruction_embedding": 10 * drawn["instruction_embedding"]}


@pytest.fixture(scope="module")
def row():
    rng = np.random.default_rng(0)
    tokens, levels = rng.integers(0, 320, (2, 12)), rng.integers(0, 4, (2, 12))
    return {
        "tokens": tokens.astype(np.int32),
        "positions": np.tile(np.arange(12, dtype=np.int32), (2, 1)),
        "segment_ids": np.full((2, 12), BRANCHES, np.int32),
        "instruction_levels": levels.astype(np.int32),
    }


def hidden(model, params, row):
    return np.asarray(jax.jit(model.hidden)(params, **row)[0])


def without_levels(row):
    return {k: v for k, v in row.items() if k != "instruction_levels"}


def test_a_model_without_levels_has_the_parameters_it_always_had():
    with_levels, plain = WITH.init(jax.random.key(3)), WITHOUT.init(jax.random.key(3))
    assert set(with_levels) - set(plain) == {"instruction_embedding"}
    del with_levels["instruction_embedding"]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), with_levels, plain))


def test_levels_are_drawn_with_deviation_one_hundredth():
    wide = dataclasses.replace(CONFIG, hidden_size=4096, num_layers=1, vocab_size=2, intermediate_size=2, head_dim=2)
    drawn = decoder.init(wide, jax.random.key(0))["instruction_embedding"]
    assert drawn.shape == (4, 4096)
    np.testing.assert_allclose(np.std(drawn), 0.01, rtol=0.03)
    assert abs(np.mean(drawn)) < 3e-4


def test_levels_of_zero_are_the_base_model_exactly(params, row):
    silent = params | {"instruction_embedding": jnp.zeros_like(params["instruction_embedding"])}
    np.testing.assert_array_equal(hidden(WITH, silent, row), hidden(WITHOUT, params, without_levels(row)))
    assert np.abs(hidden(WITH, params, row) - hidden(WITH, silent, row)).max() > 0.1


def test_one_level_for_all_is_a_constant_shift_of_the_embeddings(params, row):
    shifted = params | {"embedding": params["embedding"] + params["instruction_embedding"][2]}
    row = row | {"instruction_levels": np.full_like(row["tokens"], 2)}
    np.testing.assert_array_equal(hidden(WITH, params, row), hidden(WITHOUT, shifted, without_levels(row)))


def test_levels_may_be_renamed_together_with_their_rows(params, row):
    renamed = np.array([2, 0, 3, 1])  # old level -> new
    moved = params | {"instruction_embedding": params["instruction_embedding"][np.argsort(renamed)]}
    other = row | {"instruction_levels": renamed[row["instruction_levels"]].astype(np.int32)}
    np.testing.assert_array_equal(hidden(WITH, params, row), hidden(WITH, moved, other))


def test_the_shift_comes_before_the_scale_of_the_embeddings(params, row):
    scaled = decoder.build(dataclasses.replace(CONFIG, embedding_scale=True))
    larger = {k: 4.0 * v if k in ("embedding", "instruction_embedding") else v for k, v in params.items()}
    np.testing.assert_allclose(hidden(scaled, params, row), hidden(WITH, larger, row), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def pairs():
    """The same three examples as rows of a prompt with both sides, and as packed rows of one side each."""
    examples = formats.from_records(RECORDS, "hierarchy_pairs")
    marks = {"system": "", "user": "#", "data": "|", "assistant": "="}
    tokenized, _ = rows.tokenize(
        examples, tokenizers.ByteTokenizer(), prompt_length=64, completion_length=12, delimiters=marks
    )
    sides = [dataclasses.replace(t, completions=(completion,)) for t in tokenized for completion in t.completions]
    return collating.collate_trees(tokenized, 64, 12, 2), collating.collate_packed([sides[:4], sides[4:]], 256)


def logps(model, params, batch):
    return np.asarray(jax.jit(lambda p: statistics.compute(NEEDS, model, p, {}, batch)["policy_token_logps"])(params))


def test_completions_that_share_a_prompt_score_as_in_packed_rows(params, pairs):
    trees, packed = pairs
    together, apart = logps(WITH, params, trees), logps(WITH, params, packed)
    np.testing.assert_allclose(together[trees["mask"]], apart[packed["mask"]], rtol=2e-5, atol=1e-6)
    # And the levels have a part in it: with another one for the data the same rows score otherwise.
    other = trees | {"instruction_levels": np.where(trees["instruction_levels"] == 2, 1, trees["instruction_levels"])}
    assert np.abs(logps(WITH, params, other) - together)[trees["mask"]].max() > 1e-3


def test_rows_with_levels_serve_a_model_without_them(params, pairs):
    batch = pairs[0]
    np.testing.assert_array_equal(logps(WITHOUT, params, batch), logps(WITHOUT, params, without_levels(batch)))


def test_what_is_sampled_has_the_log_probs_of_a_full_pass_with_the_assistants_level(params):
    prompts = np.array([[9, 9, 3, 4, 5], [6, 7, 8, 2, 11]], np.int32)
    mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], bool)
    levels = np.array([[0, 0, 0, 1, 2], [0, 1, 2, 2, 3]], np.int32)
    drawn = sampler.sample(
        WITH, params, prompts, mask, jax.random.key(0), max_new_tokens=6, eos_id=319, pad_id=0,
        instruction_levels=levels,
    )  # fmt: skip
    tokens = np.concatenate([prompts, drawn.tokens], axis=1)
    there = np.concatenate([mask, drawn.mask], axis=1)
    row = {
        "tokens": tokens,
        "positions": np.maximum(np.cumsum(there, axis=1) - 1, 0).astype(np.int32),
        "segment_ids": np.where(there, BRANCHES, 0).astype(np.int32),
        "instruction_levels": np.concatenate([levels, np.full_like(drawn.tokens, ASSISTANT)], axis=1),
    }
    scores = jax.nn.log_softmax(WITH.unembed(params, hidden(WITH, params, row)[:, 4:-1]))
    expected = np.take_along_axis(np.asarray(scores), np.asarray(drawn.tokens)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(drawn.logps, np.where(drawn.mask, expected, 0), rtol=1e-4, atol=1e-5)


def test_eight_devices_equal_one(params, pairs):
    shape = {"data": 2, "fsdp": 2, "tensor": 2}
    batch = collating.pad_batch(pairs[0], 4)

    def gradient(shape, count):
        devices = mesh.make_mesh(shape, devices=jax.devices()[:count])
        placed = jax.device_put(params, mesh.parameter_sharding(devices, params))
        model = decoder.build(CONFIG, mesh.batch_sharding(devices))

        def loss(params, batch):
            return -statistics.compute(NEEDS, model, params, {}, batch)["policy_token_logps"].sum()

        return jax.tree.map(np.asarray, jax.jit(jax.grad(loss))(placed, mesh.put_batch(devices, batch)))

    one, eight = gradient({"data": 1}, 1), gradient(shape, 8)
    assert np.abs(one["instruction_embedding"]).min(axis=1).max() > 0
    tiny_steps.assert_equal_up_to(eight, one, 3e-4)


def refusals(params, row):
    prompts, mask = np.ones((1, 3), np.int32), np.ones((1, 3), bool)
    drawing = {"max_new_tokens": 2, "eos_id": 1, "pad_id": 0}
    levels = np.zeros((1, 3), np.int32)
    rng = jax.random.key(0)
    return {
        "a pass without levels": lambda: WITH.hidden(params, **without_levels(row)),
        "a pass with levels of a model without": lambda: WITHOUT.hidden(params, **row),
        "sampling without levels": lambda: sampler.sample(WITH, params, prompts, mask, rng, **drawing),
        "sampling with levels of another shape": lambda: sampler.sample(
            WITH, params, prompts, mask, rng, instruction_levels=levels[:, 1:], **drawing
        ),
        "sampling with levels of a model without": lambda: sampler.sample(
            WITHOUT, params, prompts, mask, rng, instruction_levels=levels, **drawing
        ),
        "speculative sampling": lambda: speculative.sample(WITH, params, WITH, params, prompts, mask, rng, **drawing),
    }


@pytest.mark.parametrize("case", refusals(None, {}))
def test_levels_that_are_missing_or_too_many_are_refused(params, row, case):
    with pytest.raises(ValueError, match="instruction_levels"):
        refusals(params, row)[case]()


def test_fewer_levels_than_roles_are_refused():
    with pytest.raises(ValueError, match=r"num_instruction_levels must be 0 .* at least 4"):
        dataclasses.replace(CONFIG, num_instruction_levels=3)


def test_there_is_no_hugging_face_layout_for_levels(params, tmp_path):
    with pytest.raises(ValueError, match="num_instruction_levels=4 cannot be written"):
        hugging_face.save(tmp_path / "out", CONFIG, params)
    assert not (tmp_path / "out").exists()


def test_checkpoints_from_before_there_were_levels_still_fit():
    described = {n: from_config.describe_model(dataclasses.replace(CONFIG, num_instruction_levels=n)) for n in (0, 4)}
    assert "num_instruction_levels" not in described[0]
    assert described[4] == described[0] | {"num_instruction_levels": 4}
