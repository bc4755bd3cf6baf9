"""Checkpoints: the logits transformers computes, from committed fixtures and (where torch is installed) live."""

import dataclasses
import gc
import json
import pathlib
import shutil
import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from alignment.models import decoder, hugging_face
from alignment.training import mesh

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
SIZES = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def logits_of(config, params, tokens):
    model = decoder.build(config)
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    h, _ = jax.jit(model.hidden)(params, tokens, positions, np.full(tokens.shape, 1024, np.int32))
    return np.asarray(model.unembed(params, h))


def copy(name, to):
    shutil.copytree(FIXTURES / name, to)
    return to


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", ["llama3", "tied", "qwen2", "gemma2", "gemma3", "gpt2"])
def test_fixture_gives_the_logits_of_transformers(name):
    config, params = hugging_face.load(FIXTURES / name)
    expected = np.load(FIXTURES / f"{name}.npz")
    np.testing.assert_allclose(logits_of(config, params, expected["tokens"]), expected["logits"], atol=1e-4, rtol=1e-4)
    assert ("lm_head" in params) == (name in ("llama3", "qwen2"))


def test_the_first_gpt2_files_leave_out_the_prefix_and_keep_the_mask(tmp_path):
    directory = copy("gpt2", tmp_path / "old")
    tensors = load_file(directory / "model.safetensors")
    old = {name.removeprefix("transformer."): array for name, array in tensors.items()}
    save_file(old | {"h.0.attn.bias": np.ones((1, 1, 8, 8), np.float32)}, directory / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, hugging_face.load(directory), hugging_face.load(FIXTURES / "gpt2"))


@pytest.mark.parametrize("sharded", [False, True])
def test_loading_holds_about_one_tensor_on_the_host(sharded, tmp_path):
    """16 layers of 3 large tensors; tracemalloc sees what numpy and safetensors allocate, not what the devices hold.

    An idle machine measures 1.2 of the largest tensor (1.6 sharded). The runtime gives a lent array back from a thread
    of its own, so on a busy one a few may be waiting: the bound is far from the whole file, not close to one.
    """
    config = decoder.DecoderConfig(
        vocab_size=64, hidden_size=512, intermediate_size=1024, num_layers=16, num_heads=2, tie_word_embeddings=True
    )
    params = jax.tree.map(
        lambda a: np.zeros(a.shape, np.float32), jax.eval_shape(decoder.build(config).init, jax.random.key(0))
    )
    hugging_face.save(tmp_path / "many", config, params, dtype="bfloat16")
    shardings = None
    if sharded:
        device_mesh = mesh.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
        shardings = mesh.parameter_sharding(device_mesh, params)
    hugging_face.load(tmp_path / "many", shardings=shardings)  # compiles
    gc.collect()
    tracemalloc.start()
    try:
        hugging_face.load(tmp_path / "many", shardings=shardings)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    largest = 2 * 512 * 1024  # bytes in the file
    assert decoder.parameter_count(params) * 2 > 70 * largest
    assert peak < 8 * largest


def test_version_4_configs_mean_the_same(tmp_path):
    directory = copy("llama3", tmp_path / "v4")
    raw = json.loads((directory / "config.json").read_text())
    rope = raw.pop("rope_parameters")
    raw |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope, "torch_dtype": raw.pop("dtype")}
    (directory / "config.json").write_text(json.dumps(raw))
    assert hugging_face.load_config(directory) == hugging_face.load_config(FIXTURES / "llama3")


def test_dtype_is_that_of_the_parameters_in_memory():
    config, params = hugging_face.load(FIXTURES / "tied", dtype="bfloat16")
    assert config.param_dtype == "bfloat16"
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(ml_dtypes.bfloat16)}
    _, full = hugging_face.load(FIXTURES / "tied")  # the file is bfloat16: nothing is lost either way
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.astype(np.float32), b), params, full)


@pytest.mark.parametrize("one_for_all", [True, False])
def test_shardings_are_followed_and_change_no_value(one_for_all):
    config, expected = hugging_face.load(FIXTURES / "llama3")
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)

    def sharding(leaf):
        spec = {1: ("a",), 2: ("a", "b"), 3: (None, "b", "a")}[leaf.ndim]
        return jax.NamedSharding(mesh, jax.P() if one_for_all else jax.P(*spec))

    abstract = jax.eval_shape(decoder.build(config).init, jax.random.key(0))
    shardings = jax.tree.map(sharding, abstract)
    given = jax.NamedSharding(mesh, jax.P()) if one_for_all else shardings
    _, params = hugging_face.load(FIXTURES / "llama3", shardings=given)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert jax.tree.all(jax.tree.map(lambda a, s: a.sharding == s, params, shardings))


@pytest.mark.parametrize("max_shard_bytes", [10**9, 20_000])
@pytest.mark.parametrize("name", ["llama3", "tied"])
def test_save_and_load_give_the_same_parameters(name, max_shard_bytes, tmp_path):
    config, params = hugging_face.load(FIXTURES / name)
    hugging_face.save(
        tmp_path / "out", config, params, max_shard_bytes=max_shard_bytes, extra_config={"eos_token_id": 5}
    )
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert (files == ["config.json", "model.safetensors"]) == (max_shard_bytes == 10**9)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 5
    again, loaded = hugging_face.load(tmp_path / "out")
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_reward_heads_travel_as_a_sequence_classifier(tmp_path):
    config = dataclasses.replace(hugging_face.load_config(FIXTURES / "llama3"), reward_heads=3)
    params = decoder.init(config, jax.random.key(0))
    hugging_face.save(tmp_path / "out", config, params)
    raw = json.loads((tmp_path / "out" / "config.json").read_text())
    assert raw["architectures"] == ["LlamaForSequenceClassification"] and len(raw["id2label"]) == 3
    again, loaded = hugging_face.load(tmp_path / "out")
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_a_crash_while_saving_leaves_nothing(tmp_path, monkeypatch):
    config, params = hugging_face.load(FIXTURES / "llama3")
    hugging_face.save(tmp_path / "out", config, params)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(hugging_face, "save_file", fail)
    for target, overwrite in (("new", False), ("out", True)):
        with pytest.raises(OSError, match="disk full"):
            hugging_face.save(tmp_path / target, config, params, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    jax.tree.map(np.testing.assert_array_equal, hugging_face.load(tmp_path / "out")[1], params)


def test_overwrite_must_be_asked_for(tmp_path):
    config, params = hugging_face.load(FIXTURES / "llama3")
    hugging_face.save(tmp_path / "out", config, params)
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        hugging_face.save(tmp_path / "out", config, params)
    doubled = jax.tree.map(lambda a: 2 * a, params)
    hugging_face.save(tmp_path / "out", config, doubled, overwrite=True)
    jax.tree.map(np.testing.assert_array_equal, hugging_face.load(tmp_path / "out")[1], doubled)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_parameters_that_do_not_fit_are_refused_on_saving(tmp_path):
    config, params = hugging_face.load(FIXTURES / "llama3")
    with pytest.raises(ValueError, match=r"final_norm has shape \(3,\), the config asks for \(32,\)"):
        hugging_face.save(tmp_path / "out", config, params | {"final_norm": np.ones(3)})
    with pytest.raises(ValueError, match="reward_head is not in the config"):
        hugging_face.save(tmp_path / "out", config, params | {"reward_head": np.ones((32, 1))})
    del params["lm_head"]
    with pytest.raises(ValueError, match="lm_head is missing"):
        hugging_face.save(tmp_path / "out", config, params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "model_type = 'mamba' is not supported; supported are llama"),
        ({"hidden_act": "relu"}, "hidden_act = 'relu'"),
        ({"mlp_bias": True, "model_type": "qwen3"}, "mlp_bias = True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_parameters.rope_type = 'dynamic'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 9.0}}, "rope_parameters lacks factor"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_parameters lacks low_freq_factor"),
        (
            {"layer_types": ["sliding_attention", "full_attention"]},
            "has sliding layers, which this model has no window",
        ),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping = 30.0"),
        ({"model_type": "gpt2", "n_embd": 32}, "key 'n_layer' is missing"),
        ({"model_type": "qwen2", "layer_types": ["sliding_attention"]}, "layer_types"),
        ({"hidden_size": None}, "key 'hidden_size' is missing"),
    ],
)
def test_features_the_decoder_lacks_are_named(changes, message, tmp_path):
    directory = copy("llama3", tmp_path / "bad")
    edit_config(directory, **changes)
    with pytest.raises(ValueError, match=message) as error:
        hugging_face.load(directory)
    assert "config.json" in str(error.value)


def test_unknown_keys_are_warned_about(tmp_path):
    directory = copy("llama3", tmp_path / "odd")
    edit_config(directory, residual_twist=2.0, unused=None)
    with pytest.warns(UserWarning, match="ignored: residual_twist$"):
        hugging_face.load_config(directory)


def test_broken_directories_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such directory"):
        hugging_face.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds neither model\.safetensors nor"):
        hugging_face.load(tmp_path / "empty")
    lost = copy("tied", tmp_path / "lost")
    (lost / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model-00002-of-00002\.safetensors: no such file, although"):
        hugging_face.load(lost)
    cut = copy("llama3", tmp_path / "cut")
    data = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(data[:-7])
    with pytest.raises(ValueError, match=r"cut/model\.safetensors: not a whole safetensors file"):
        hugging_face.load(cut)
    garbled = copy("llama3", tmp_path / "garbled")
    (garbled / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"garbled/config\.json: not valid JSON"):
        hugging_face.load(garbled)
    (garbled / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"garbled/config\.json: no such file"):
        hugging_face.load(garbled)


def test_broken_tensors_are_named(tmp_path):
    directory = copy("llama3", tmp_path / "bad")
    tensors = load_file(directory / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"

    def load_with(changed):
        save_file(changed, directory / "model.safetensors")
        return hugging_face.load(directory)

    with pytest.raises(ValueError, match=f"tensor {name} is missing"):
        load_with({k: v for k, v in tensors.items() if k != name})
    with pytest.raises(ValueError, match=rf"model.safetensors: tensor {name} has shape \(16, 31\)"):
        load_with(tensors | {name: np.ascontiguousarray(tensors[name][:, 1:])})
    with pytest.raises(ValueError, match=f"tensor {name} has dtype I32"):
        load_with(tensors | {name: tensors[name].astype(np.int32)})
    with pytest.raises(ValueError, match=r"no place for: model.layers.0.self_attn.sinks"):
        load_with(tensors | {"model.layers.0.self_attn.sinks": np.ones(4, np.float32)})
    load_with(tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)})


@pytest.mark.parametrize(
    "change",
    [
        {"logit_softcap": 3.0},
        {"norm": "gemma"},
        {"attention_output_bias": True},
        {"attention_bias": True, "qk_norm": True},
        {"sliding_window": 8, "layer_types": ("sliding_attention", "full_attention")},
        {"post_norms": True},
        {"learned_positions": True},
        {"query_pre_attn_scalar": 3.0},
    ],
)
def test_configs_without_a_layout_cannot_be_written(change):
    config = dataclasses.replace(hugging_face.load_config(FIXTURES / "llama3"), **change)
    with pytest.raises(ValueError, match="written"):
        hugging_face.config_to_hugging_face(config)


SLIDING_2ND = {"sliding_window": 5, "layer_types": ["full_attention", "sliding_attention"]}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 500.0,
    "beta_fast": 2.0,
}
SOFTCAPS = {"final_logit_softcapping": 4.0, "attn_logit_softcapping": 3.0}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 48}
LIVE = {
    "llama": ("Llama", {}),
    "tied": ("Llama", {"tie_word_embeddings": True}),
    "multi_head": ("Llama", {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True, "head_dim": 16}),
    "llama3": ("Llama", {"rope_parameters": LLAMA3 | {"rope_theta": 500.0}}),
    "linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}}),
    "mistral": ("Mistral", {"sliding_window": 7}),
    "mistral_full": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2_sliding": ("Qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen2_yarn": ("Qwen2", {"rope_parameters": YARN}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3_sliding": ("Qwen3", {"head_dim": 8, "use_sliding_window": True, **SLIDING_2ND}),
    "gemma": ("Gemma", {"head_dim": 8}),
    "gemma2": ("Gemma2", {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 12, **SOFTCAPS}),
    "gemma3": (
        "Gemma3Text",
        {
            **{"num_hidden_layers": 3, "head_dim": 8, "sliding_window": 5, "sliding_window_pattern": 2},
            **{"query_pre_attn_scalar": 12, "rope_local_base_freq": 50.0, "rope_theta": 700.0},
            "rope_scaling": {"rope_type": "linear", "factor": 4.0},
        },
    ),
    "gpt2": ("GPT2", GPT2),
    "gpt2_untied": ("GPT2", GPT2 | {"n_inner": 40, "tie_word_embeddings": False}),
}


def of_transformers(name):
    """A random model of transformers, larger than its initial one, so that every part of it shows in the logits."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    kind, extra = LIVE[name]
    config = getattr(transformers, f"{kind}Config")(**extra if kind == "GPT2" else SIZES | extra)
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3 if parameter.ndim == 1 else 0.15)
    return theirs


@pytest.mark.parametrize("name", LIVE)
def test_transformers_live_both_ways(name, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = of_transformers(name)
    theirs.save_pretrained(tmp_path / "theirs")
    tokens = np.random.default_rng(0).integers(0, 48, (2, 40))
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits.numpy()
        config, params = hugging_face.load(tmp_path / "theirs")
        np.testing.assert_allclose(logits_of(config, params, tokens), expected, atol=1e-4, rtol=1e-4)
        hugging_face.save(tmp_path / "ours", config, params, max_shard_bytes=20_000)
        back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
        np.testing.assert_array_equal(back(torch.tensor(tokens)).logits.numpy(), expected)


@pytest.mark.parametrize("name", ["mistral", "qwen3_sliding", "gemma2", "gemma3", "gpt2"])
def test_cached_decode_of_a_family_equals_its_full_forward(name, tmp_path):
    of_transformers(name).save_pretrained(tmp_path / "theirs")
    config, params = hugging_face.load(tmp_path / "theirs")
    model = decoder.build(config)
    tokens = np.random.default_rng(0).integers(0, 48, (2, 14)).astype(np.int32)
    positions = np.broadcast_to(np.arange(14, dtype=np.int32), tokens.shape)
    segments = np.full(tokens.shape, 1024, np.int32)
    step, cache, parts = jax.jit(model.hidden), decoder.init_cache(config, 2, 14), []
    for here in (slice(0, 9), *(slice(i, i + 1) for i in range(9, 14))):
        h, cache = step(params, tokens[:, here], positions[:, here], segments[:, here], cache)
        parts.append(model.unembed(params, h))
    full = logits_of(config, params, tokens)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), full, atol=1e-5 * np.abs(full).max())


def test_transformers_reads_the_reward_model_live(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from alignment.models import heads

    config = dataclasses.replace(hugging_face.load_config(FIXTURES / "llama3"), reward_heads=1)
    params = decoder.init(config, jax.random.key(0))
    hugging_face.save(tmp_path / "out", config, params, extra_config={"pad_token_id": 0})
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokens = np.random.default_rng(0).integers(1, 48, (2, 12))
    positions = np.broadcast_to(np.arange(12), (2, 12))
    h, _ = decoder.build(config).hidden(params, tokens, positions, np.full((2, 12), 1024))
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(heads.rewards(params, h, np.full((2, 1), 11))[:, 0], expected, atol=1e-5)
    # A reward model saved by transformers has no output matrix.
    theirs.save_pretrained(tmp_path / "theirs")
    again, loaded = hugging_face.load(tmp_path / "theirs")
    assert again.reward_heads == 1 and again.tie_word_embeddings
    np.testing.assert_array_equal(loaded["reward_head"], params["reward_head"])
