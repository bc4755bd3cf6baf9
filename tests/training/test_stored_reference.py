"""What the starting model says once of every example: stored, used again only if it fits, joined to each batch."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from alignment.data import pipeline, rows
from alignment.models import decoder
from alignment.training import mesh, stored_reference
from experiments import finetune, from_config

BETTER, WORSE = "Be kind. ", "Be very rude. "
MODEL = decoder.build(
    decoder.DecoderConfig(vocab_size=259, hidden_size=16, intermediate_size=16, num_layers=1, num_heads=2)
)


def load(**data):
    config = tiny_runs.dpo(1)
    config.data.update(data)
    return config, from_config.load_data(config)


def logps_of(seed):
    return stored_reference.token_logps(MODEL, MODEL.init(jax.random.key(seed)), chunk_size=None, temperature=1.0)


def written_out(params, prompt, completion):
    """Token log-probs of one completion from materialised logits, without padding or a second side."""
    tokens = jnp.asarray([[*prompt, *completion]])
    positions, segments = jnp.arange(tokens.size)[None], jnp.full(tokens.shape, 1024)
    hidden, _ = MODEL.hidden(params, tokens, positions, segments)
    logits = jax.nn.log_softmax(MODEL.unembed(params, hidden))[0]
    at = len(prompt) - 1 + np.arange(len(completion))
    return np.asarray(logits[at, np.asarray(completion)])


def test_a_file_of_another_model_is_not_used(tmp_path, capsys):
    _, data = load()
    batches = [(b,) for b in pipeline.evaluation_batches(data.train, batch_size=8, collate=data.collate)]

    def table(seed):
        return stored_reference.load_or_score(
            tmp_path / "reference.npz", logps_of(seed), batches, {e.id for e in data.train},
            mesh.make_mesh({"data": -1}), "reference log-probs",
        )  # fmt: skip

    first, other = table(0), table(1)
    assert "is of other data or of another model" in capsys.readouterr().out
    again = table(1)
    assert "scoring again" not in capsys.readouterr().out
    assert not np.allclose(first[0], other[0])
    for i in other:
        np.testing.assert_array_equal(other[i], again[i])


def test_token_rewards_compare_the_same_tokens_after_two_prompts_of_different_length(tmp_path):
    config, data = load(revision_prompts={"better": BETTER, "worse": WORSE})
    params = MODEL.init(jax.random.key(0))
    logps = stored_reference.token_logps(MODEL, params, chunk_size=None, temperature=1.0)
    examples = data.train[:11]  # the last batch is filled up
    table = stored_reference.load_or_score(
        tmp_path / "token_rewards.npz",
        stored_reference.token_rewards(logps),
        from_config.revised_batches(config, data, MODEL.config, examples),
        {e.id for e in examples},
        mesh.make_mesh({"data": -1}),
        "token rewards",
    )
    assert set(table) == {e.id for e in examples}
    for example in examples[::5]:
        bos, *prompt = example.prompt.tolist()
        for side, completion in enumerate(example.completions):
            better, worse = (
                written_out(params, [bos, *text.encode(), *prompt], completion) for text in (BETTER, WORSE)
            )
            n = len(completion)
            expected = 1 / (1 + np.exp(worse - better)) - 0.5
            np.testing.assert_allclose(table[example.id][side, :n], expected, atol=2e-5)
            np.testing.assert_array_equal(table[example.id][side, n:], 0.0)
            assert np.abs(expected).max() > 1e-4


def test_join_finds_examples_by_id_and_gives_rows_that_only_pad_zeros():
    table = {3: np.full((2, 4), 3.0, np.float32), 5: np.full((2, 4), 5.0, np.float32)}
    batch = {"targets": np.zeros((3, 2, 4), np.int32), "ids": np.array([5, -1, 3])}
    joined = stored_reference.join(batch, {"token_rewards": table})
    np.testing.assert_array_equal(joined["token_rewards"][:, 0, 0], [5.0, 0.0, 3.0])
    assert stored_reference.join(batch, {}) == batch


def test_a_prefix_stands_behind_the_begin_token():
    example = rows.Tokenized(0, np.array([257, 1, 2], np.int32), (np.array([3], np.int32),))
    assert rows.with_prefix(example, [8, 9], 257).prompt.tolist() == [257, 8, 9, 1, 2]
    assert rows.with_prefix(example, [8, 9], None).prompt.tolist() == [8, 9, 257, 1, 2]


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_a_run_trains_on_the_rewards_that_it_stored(tmp_path, monkeypatch, alpha):
    """With alpha = 0 it is DPO to the last digit that matters; with 0.5 the rewards change the losses."""
    tiny_runs.one_device(monkeypatch)
    config = tiny_runs.dpo(3)
    finetune.run(config, tmp_path / "dpo")
    config = tiny_runs.dpo(3, {"treg": {"weight": 1.0, "beta": 0.5, "alpha": alpha}})
    config.data.revision_prompts.update({"better": BETTER, "worse": WORSE})
    finetune.run(config, tmp_path / "treg")
    assert (tmp_path / "treg" / "token_rewards_train.npz").exists()
    assert (tmp_path / "treg" / "token_rewards_eval.npz").exists()
    last = [
        json.loads((tmp_path / name / "result.json").read_text())["result"]["evaluation"]["loss"]
        for name in ("dpo", "treg")
    ]
    assert (abs(last[0] - last[1]) < 1e-5) is (alpha == 0.0)


def test_other_prompts_are_scored_again(tmp_path, monkeypatch, capsys):
    tiny_runs.one_device(monkeypatch)
    for worse in (WORSE, "Be lazy. "):
        config = tiny_runs.dpo(1, {"treg": {}})
        config.data.revision_prompts.update({"better": BETTER, "worse": worse})
        config.training.steps = 1
        finetune.run(config, tmp_path)
        (tmp_path / "result.json").unlink()
    assert "token_rewards_train.npz is of other data or of another model" in capsys.readouterr().out
