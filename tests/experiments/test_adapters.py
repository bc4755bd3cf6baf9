"""Runs that train adapters only: what they hold, write and resume, offline and online."""

import json
import shutil

import jax
import numpy as np
import pytest
import tiny_runs

from alignment.data import corpus, tokenizers
from alignment.models import decoder, hugging_face, lora
from alignment.training import mesh
from alignment.training.logging import read_metrics
from configs import common, grpo, online
from experiments import finetune, from_config, reinforce

CONFIG = decoder.DecoderConfig(
    vocab_size=320, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2,
    max_position_embeddings=128,
)  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path):
    """A model with a tokenizer of its own: words, with a chat template in a file beside it."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    texts = [r[k] for r in corpus.generate("pairs", 64, 0) for k in ("prompt", "chosen", "rejected")]
    words = pre_tokenizers.Whitespace()
    known = sorted({word for text in texts for word, _ in words.pre_tokenize_str(text)})
    vocabulary = {word: i for i, word in enumerate(["<s>", "</s>", "<unk>", *known])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = words
    params = decoder.init(CONFIG, jax.random.key(3))
    hugging_face.save(tmp_path / "start", CONFIG, params)
    tokenizer.save(str(tmp_path / "start" / "tokenizer.json"))
    special = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (tmp_path / "start" / "tokenizer_config.json").write_text(json.dumps(special))
    template = "{% for m in messages %}{{ m.role }} says {{ m.content }} {% endfor %}"
    (tmp_path / "start" / "chat_template.jinja").write_text(template)
    return tmp_path / "start"


def dpo_with_adapters(checkpoint, **adapter):
    config = tiny_runs.dpo(steps=4)
    config.model.hugging_face = str(checkpoint)
    config.adapter.update({"rank": 4, "alpha": 8.0} | adapter)
    config.optimizer.learning_rate = 1e-2
    config.checkpoints.update({"every": 2, "keep_last": 3, "export_hugging_face": True})
    return config


def logits(params, config=CONFIG):
    model = decoder.build(config)
    tokens = np.random.default_rng(0).integers(2, 40, (2, 9))
    positions = np.broadcast_to(np.arange(9), tokens.shape)
    return tokens, model.unembed(params, model.hidden(params, tokens, positions, np.full(tokens.shape, 1024))[0])


@pytest.mark.parametrize("quantize", ["", "nf4"])
def test_a_run_from_a_checkpoint_writes_adapters_that_peft_loads_and_the_merged_model(
    quantize, checkpoint, tmp_path, monkeypatch
):
    tiny_runs.one_device(monkeypatch)
    config = dpo_with_adapters(checkpoint, quantize=quantize)
    result = finetune.run(config, tmp_path / "run")
    losses = [r["loss"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["split"] == "train"]
    assert losses[0] == pytest.approx(np.log(2), abs=1e-6) and min(losses) < np.log(2) - 1e-3

    _, base = hugging_face.load(checkpoint)
    _, merged = hugging_face.load(result["hugging_face"])
    adapter, adapters = lora.load(result["adapter"], CONFIG)
    if quantize:
        base = lora.quantize_base(base, quantize)
    tokens, got = logits(merged)
    np.testing.assert_allclose(got, logits(lora.attach(adapter, base, adapters))[1], atol=1e-5)
    assert np.abs(got - logits(base)[1]).max() > 1e-3

    # The tokenizer comes along, its chat template too.
    old, new = (tokenizers.HuggingFaceTokenizer(d) for d in (checkpoint, result["hugging_face"]))
    messages = [{"role": "user", "content": "hello"}]
    assert new.render_chat(messages, False) == old.render_chat(messages, False) == "user says hello "
    assert new.encode("the cat") == old.encode("the cat")

    # Stopped after two steps and started again: the same adapters, bit for bit.
    first = (tmp_path / "run" / "adapter" / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    (tmp_path / "run" / "result.json").unlink()
    finetune.run(config, tmp_path / "run")
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").read_bytes() == first

    if not quantize:
        torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
        peft = pytest.importorskip("peft")
        theirs = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        with torch.no_grad():
            want = peft.PeftModel.from_pretrained(theirs, result["adapter"])(torch.tensor(tokens)).logits.numpy()
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_the_reference_is_the_base_itself_and_only_adapters_are_trained(checkpoint):
    config = dpo_with_adapters(checkpoint)
    device_mesh = mesh.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    model, given = from_config.build_model(config, 320)
    base = from_config.initial_params(model, given, 0, device_mesh, store=from_config.stored_base(config))
    assert from_config.reference_params(config, given, model, base, device_mesh) is base
    adapters = from_config.adapters_on(config, from_config.make_adapter(config), model, base, device_mesh)
    assert set(adapters) == {"layers"} and all("_lora_" in name for name in adapters["layers"])
    assert decoder.parameter_count(adapters) < 0.4 * decoder.parameter_count(base)


@pytest.mark.parametrize("reward_heads", [0, 1])
@pytest.mark.parametrize("quantize", ["", "int8"])
def test_a_checkpoint_is_read_onto_a_mesh_as_on_one_device(quantize, reward_heads, checkpoint):
    config = dpo_with_adapters(checkpoint, quantize=quantize)
    config.model.update({"dtype": "bfloat16", "reward_heads": reward_heads})
    model, given = from_config.build_model(config, 320)
    store = from_config.stored_base(config)
    several = from_config.initial_params(model, given, 0, mesh.make_mesh({"fsdp": 4, "tensor": 2}), store=store)
    one = from_config.initial_params(model, given, 0, mesh.make_mesh({}, jax.devices()[:1]), store=store)
    jax.tree.map(np.testing.assert_array_equal, several, one)
    assert one["embedding"].dtype == "bfloat16" and ("reward_head" in one) == bool(reward_heads)
    assert hasattr(one["layers"]["q"], "qvalue") == bool(quantize)
    q = jax.tree.leaves(several["layers"]["q"])[0]
    assert q.addressable_shards[0].data.size * 8 == q.size


def test_an_online_run_trains_adapters(tmp_path, monkeypatch):
    tiny_runs.one_device(monkeypatch)
    config = tiny_runs.shrink_online(grpo.get_config())
    config.before, config.adapter.rank = common.ConfigDict(), 2
    config.rewards = common.ConfigDict({"letters": {"function": "tiny_runs:letters"}})
    config.optimizer.learning_rate = 1e-2
    config.checkpoints.export_hugging_face = True
    result = reinforce.run(config, tmp_path)
    train = [r for r in read_metrics(tmp_path / "metrics.jsonl") if r["split"] == "train"]
    assert any(r["grad_norm"] > 0 for r in train) and all(r["skipped"] == 0 for r in train)
    model_config, _ = hugging_face.load(result["hugging_face"])
    adapter, adapters = lora.load(result["adapter"], model_config)
    assert adapter.rank == 2 and float(np.abs(adapters["layers"]["q_lora_b"]).max()) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapter.rank": 0, "adapter.quantize": "nf4"}, "config.adapter.rank: 0 means no adapters"),
        ({"adapter.quantize": "fp3"}, "config.adapter: quantize must be one of"),
        ({"adapter.targets": ("q", "head")}, "config.adapter: targets must be some of"),
        ({"adapter.rank": 64}, "config.adapter: rank 64 is above"),
        ({"reference.update_every": 2}, "config.reference.update_every: the reference of a run with adapters"),
        ({"reference.soup": ("x",), "adapter.quantize": "int8"}, "a quantised base cannot be averaged"),
    ],
)
def test_settings_that_do_not_go_together_are_named(change, message, checkpoint, tmp_path):
    config = dpo_with_adapters(checkpoint)
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=message):
        finetune.run(config, tmp_path / "run")


def test_a_run_does_not_start_from_adapters_alone(checkpoint, tmp_path):
    config = common.starting_from(tiny_runs.dpo(), tiny_runs.dpo())
    config.before.adapter.rank = 4
    with pytest.raises(ValueError, match="start from its merged model instead"):
        finetune.run(config, tmp_path / "run")
    assert online.base().adapter == common.base().adapter
