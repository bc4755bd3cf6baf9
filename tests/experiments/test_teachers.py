"""Teachers of a run: who is refused before anything is trained, and what the parts of a run say to each other."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from alignment import statistics
from alignment.data import tokenizers
from alignment.models import decoder
from alignment.training import mesh, rollouts
from configs import common, online
from experiments import engines, finetune, from_config, make_data, reinforce, teachers

BYTES = tokenizers.ByteTokenizer()


class Words:
    """A tokenizer of a few words, in place of one from a directory."""

    vocab_size, eos_id = 3, 2

    def __init__(self, words=("a", "b", "end")):
        self.words = words

    def pieces(self):
        return {word: i for i, word in enumerate(self.words)}


def distilled():
    return tiny_runs.shrink(common.distillation({"gkd": {"weight": 1.0, "beta": 0.3, "reduction": "token_mean"}}))


def test_tokenizers_are_told_apart_by_what_their_numbers_stand_for():
    teachers.check_tokenizer("config.teacher", "runs/big", Words(), Words())
    with pytest.raises(ValueError, match=r"runs/big has another tokenizer .* there token 1 is 'c', here"):
        teachers.check_tokenizer("config.teacher", "runs/big", Words(("a", "c", "end")), Words())
    with pytest.raises(ValueError, match=r"there has no token 2, here token 2 is 'end'"):
        teachers.check_tokenizer("config.teacher", "runs/big", Words(("a", "b")), Words())
    other_end = Words()
    other_end.eos_id = 1
    with pytest.raises(ValueError, match=r"ends with token 1, this run with token 2"):
        teachers.check_tokenizer("config.teacher", "runs/big", other_end, Words())


def tokenizer_directory(path):
    """A teacher as transformers saves one, with a tokenizer of whole words."""
    hub = pytest.importorskip("tokenizers")
    words = {word: i for i, word in enumerate(("<end>", "one", "two"))}
    path.mkdir()
    hub.Tokenizer(hub.models.WordLevel(words, unk_token="<end>")).save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    (path / "config.json").write_text("{}")
    return path


@pytest.mark.parametrize("script", ["finetune", "reinforce"])
def test_a_teacher_of_another_tokenizer_stops_the_run_before_anything_is_trained(script, tmp_path, monkeypatch):
    tiny_runs.one_device(monkeypatch)
    directory = tokenizer_directory(tmp_path / "teacher")
    if script == "finetune":
        config, run = distilled(), finetune.run
    else:
        config, run = online.after_warm_up({}, {}, {"gkd": {"weight": 1.0}}), reinforce.run
        tiny_runs.shrink_online(config)
    config.teacher.run, config.teacher.checkpoint = {}, str(directory)
    with pytest.raises(ValueError, match=r"config.teacher.checkpoint: .*has another tokenizer than this run"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists() and not (tmp_path / "run" / "before").exists()


def test_a_teacher_that_is_missing_said_twice_or_unread_is_refused():
    config = distilled()
    teachers.check(config, {"teacher"}, BYTES)
    with pytest.raises(ValueError, match=r"config.teacher: no kernel of this run asks for it"):
        teachers.check(config, {"reference"}, BYTES)
    with pytest.raises(ValueError, match=r"config.contrast: a kernel of this run asks for it"):
        teachers.check(config, {"teacher", "contrast"}, BYTES)
    config.teacher.checkpoint = "runs/big"
    with pytest.raises(ValueError, match=r"set either config.teacher.checkpoint"):
        teachers.check(config, {"teacher"}, BYTES)
    config.teacher.run = {}
    with pytest.raises(ValueError, match=r"config.teacher.checkpoint: runs/big is neither the WORKDIR"):
        teachers.check(config, {"teacher"}, BYTES)


def test_tables_of_another_length_and_a_short_context_are_refused():
    ours = decoder.DecoderConfig(vocab_size=320, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=2)
    config = distilled()
    longer = ours.__class__(vocab_size=384, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=2)
    with pytest.raises(ValueError, match=r"runs/big has 384 token embeddings, the model of this run 320"):
        teachers._check_sizes("config.teacher", "runs/big", longer, ours, config)
    config.data.packed_length = ours.max_position_embeddings + 1
    with pytest.raises(ValueError, match=f"rows of this run have {ours.max_position_embeddings + 1} tokens, more than"):
        teachers._check_sizes("config.teacher", "runs/big", ours, ours, config)


def test_teacher_and_contrast_share_the_run_that_both_and_the_student_begin_with(tmp_path, monkeypatch):
    """AlignDistil from end to end: one SFT, a DPO model and its reverse, and a student that starts where they did."""
    from configs import aligndistil

    tiny_runs.one_device(monkeypatch)
    config = tiny_runs.shrink(aligndistil.get_config())
    finetune.run(config, tmp_path)
    assert not (tmp_path / "teacher" / "before").exists() and not (tmp_path / "contrast" / "before").exists()
    assert (tmp_path / "before" / "result.json").is_file()
    device_mesh = mesh.make_mesh({"data": 1})
    params = [from_config.load_run("", str(tmp_path / r), device_mesh)[3] for r in teachers.ROLES]
    assert float(jnp.abs(params[0]["embedding"] - params[1]["embedding"]).max()) > 0  # pairs and swapped pairs


def test_samples_of_teacher_and_policy_have_the_log_probs_of_their_mixture():
    config = online.after_warm_up({}, {}, {"minillm": {"weight": 1.0}})
    tiny_runs.shrink_online(config)
    config.rollout.temperature, config.data.prompt_length, config.data.completion_length = 0.8, 3, 4
    built = [
        decoder.build(
            decoder.DecoderConfig(vocab_size=320, hidden_size=w, intermediate_size=8, num_layers=1, num_heads=2)
        )
        for w in (8, 12)
    ]
    params = [jax.tree.map(lambda x: 2 * x, m.init(jax.random.key(i))) for i, m in enumerate(built)]
    config.rollout.engine = "experiments.engines:teacher_mixed"
    config.rollout.engine_settings = {"share": 0.3}
    frozen = {"teacher": built[1]}, {"teacher": params[1]}
    engine = engines.make(config, built[0], BYTES, *frozen)
    assert engine.models == {"teacher"}
    prompts, mask = np.full((2, 3), 65, np.int32), np.ones((2, 3), bool)
    drawn = engine.draw((), params[0], prompts, mask, jax.random.key(0))
    tokens = np.concatenate([np.repeat(prompts, config.rollout.group_size, axis=0), drawn.tokens], axis=1)
    index = jnp.broadcast_to(jnp.arange(7), tokens.shape)
    logps = []
    for model, p in zip(built, params, strict=True):
        hidden, _ = model.hidden(p, jnp.asarray(tokens), index, jnp.ones_like(index))
        z = jax.nn.log_softmax(model.unembed(p, hidden)[:, 2:6] / 0.8)
        logps.append(jnp.take_along_axis(z, jnp.asarray(drawn.tokens)[..., None], axis=-1)[..., 0])
    mixture = jnp.log(0.7 * jnp.exp(logps[0]) + 0.3 * jnp.exp(logps[1]))
    np.testing.assert_allclose(drawn.logps[drawn.mask], np.asarray(mixture)[drawn.mask], rtol=2e-4, atol=2e-4)
    config.rollout.top_k = 5
    with pytest.raises(ValueError, match=r"config.rollout.engine: .*not of a mixture"):
        engines.make(config, built[0], BYTES, *frozen)


def test_the_proposal_is_an_older_policy_until_it_is_refreshed():
    config = online.after_warm_up({}, {}, {"dpg": {"weight": 1.0}})
    config.rollout.engine, config.rollout.engine_settings = "experiments.engines:older_policy", {"refresh_every": 2}
    model = decoder.build(
        decoder.DecoderConfig(vocab_size=320, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=2)
    )
    engine = engines.make(config, model, BYTES)
    first, second, third = (model.init(jax.random.key(i)) for i in range(3))
    memory = engine.update(engine.init(first), second, {})
    np.testing.assert_array_equal(memory["proposal"]["embedding"], first["embedding"])
    memory = engine.update(memory, third, {})
    np.testing.assert_array_equal(memory["proposal"]["embedding"], third["embedding"])


def test_the_proposal_becomes_the_policy_only_if_that_is_nearer_to_the_target():
    config = online.after_warm_up(
        {"target_logps": {}, "prompt_log_partitions": {"gives": "log_partitions"}}, {}, {"dpg": {"weight": 1.0}}
    )
    config.data.completion_length, config.rollout.group_size = 6, 16
    config.rollout.engine, config.rollout.engine_settings = "experiments.engines:nearest_policy", {"refresh_every": 1}
    model = decoder.build(
        decoder.DecoderConfig(vocab_size=320, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=2)
    )
    engine = engines.make(config, model, BYTES)
    first, second = (model.init(jax.random.key(i)) for i in range(2))
    tokens, mask = rollouts.pad_prompts([[5, 6], [7]], 3, 0)
    drawn = engine.draw(engine.init(first), second, tokens, mask, jax.random.key(4))
    rows = rollouts.to_rows(tokens, mask, drawn, 16, np.arange(2))
    needed = statistics.Needs(frozenset({"token_logps"}), {}, frozenset())

    def logps(params):
        of_tokens = statistics.compute(needed, model, params, {}, rows)["policy_token_logps"]
        return np.where(rows["mask"], of_tokens, 0.0).sum(axis=-1)

    behaviour = rows["behaviour_token_logps"].sum(axis=-1)
    np.testing.assert_allclose(logps(first), behaviour, rtol=1e-4)
    prefers = np.sign(logps(second) - behaviour)  # the completions that the policy writes more often than the proposal
    assert (prefers > 0).any(axis=1).all() and (prefers < 0).any(axis=1).all()

    def proposal_after(likes, valid=True):
        """For a target whose weights P / (Z q) are e^5 or e^-5."""
        columns = {"target_logps": behaviour + 5 * likes + 0.3, "log_partitions": np.full((2, 16), 0.3, np.float32)}
        columns["valid"] = np.broadcast_to(valid, (2, 16))
        return engine.update(engine.init(first), second, rows | columns)["proposal"]["embedding"]

    np.testing.assert_array_equal(proposal_after(prefers), second["embedding"])
    np.testing.assert_array_equal(proposal_after(-prefers), first["embedding"])
    torn = prefers * [[-1], [2]]  # the second prompt speaks louder, for the policy
    np.testing.assert_array_equal(proposal_after(torn), second["embedding"])
    np.testing.assert_array_equal(proposal_after(torn, [[True], [False]]), first["embedding"])

    config.shaping = {"target_logps": {}}
    with pytest.raises(ValueError, match=r"config\.shaping must give log_partitions"):
        engines.make(config, model, BYTES)
    config.shaping = {"target_logps": {}, "log_partitions": {}}
    config.rollout.top_k = 5
    with pytest.raises(ValueError, match="leave out completions that the target may want"):
        engines.make(config, model, BYTES)


def test_lists_to_rerank_are_ordered_by_what_their_candidates_share_with_the_query(tmp_path):
    files = [str(tmp_path / f"{name}.jsonl") for name in ("train", "eval")]
    counts = make_data.run(["first_ranknet", f"--output={files[0]}", f"--eval={files[1]}", "--size=8"])
    assert counts == {"lists": 8, "evaluation_lists": 2}
    for line in (tmp_path / "train.jsonl").read_text().splitlines():
        record = json.loads(line)
        query, *candidates = record["prompt"].split()
        words = dict(c.split("=") for c in candidates)
        order = record["responses"][0].split(" > ")
        assert record["responses"][1:] == order[1:] and record["labels"] == [4.0, 3.0, 2.0, 1.0]
        shared = [sum(letter in query for letter in words[x]) for x in order]
        assert shared == sorted(shared, reverse=True) and len(set(shared)) == 4
