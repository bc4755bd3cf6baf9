"""Adapters: unchanged at the start, merged equals unmerged, gradients of the adapters only, and what peft computes."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from alignment.models import decoder, heads, hugging_face, lora, quantized
from alignment.models.decoder import DecoderConfig

CONFIG = DecoderConfig(
    vocab_size=48,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    tie_word_embeddings=True,
)
GPT2 = dataclasses.replace(
    CONFIG, num_kv_heads=4, learned_positions=True, norm="layer", gated_mlp=False, mlp_bias=True, attention_bias=True,
    attention_output_bias=True, activation="gelu_tanh", max_position_embeddings=64,
)  # fmt: skip
TOKENS = np.random.default_rng(0).integers(1, 48, (2, 12)).astype(np.int32)
KINDS = {
    "lora": lora.Adapter(4, 8.0),
    "some_targets": lora.Adapter(3, 7.0, ("q", "v")),
    "rank_stabilized": lora.Adapter(4, 8.0, rank_stabilized=True),
    "dora": lora.Adapter(4, 8.0, magnitudes=True),
}
each_kind = pytest.mark.parametrize("adapter", KINDS.values(), ids=KINDS)


def noisy(tree, seed, size=0.15):
    """Larger than the first values, so that no part of the tree is without effect."""
    keys = iter(jax.random.split(jax.random.key(seed), len(jax.tree.leaves(tree))))
    return jax.tree.map(lambda a: a + size * jax.random.normal(next(keys), a.shape), tree)


def base_of(config=CONFIG):
    return noisy(decoder.init(config, jax.random.key(0)), 1)


def trained(adapter, base, config=CONFIG):
    return noisy(lora.init(adapter, config, base, jax.random.key(2)), 3)


def logits(params, config=CONFIG):
    model = decoder.build(config)
    positions = np.broadcast_to(np.arange(TOKENS.shape[1], dtype=np.int32), TOKENS.shape)
    h, _ = jax.jit(model.hidden)(params, TOKENS, positions, np.full(TOKENS.shape, 1024, np.int32))
    return model.unembed(params, h)


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(jnp.abs(b).max()))


@each_kind
def test_new_adapters_change_nothing(adapter):
    base = base_of()
    adapters = lora.init(adapter, CONFIG, base, jax.random.key(2))
    close(logits(lora.attach(adapter, base, adapters)), logits(base))


@each_kind
@pytest.mark.parametrize("config", [CONFIG, GPT2], ids=["llama", "gpt2"])
def test_merged_equals_unmerged(adapter, config):
    base = base_of(config)
    adapters = trained(adapter, base, config) if config is CONFIG or "gate" not in adapter.targets else None
    if adapters is None:
        adapter = dataclasses.replace(adapter, targets=("q", "k", "v", "o", "up", "down"))
        adapters = trained(adapter, base, config)
    unmerged = logits(lora.attach(adapter, base, adapters), config)
    close(logits(lora.merge(adapter, base, adapters), config), unmerged)
    assert np.abs(unmerged - logits(base, config)).max() > 0.1


def test_the_update_has_the_rank_and_no_more():
    base, adapter = base_of(), KINDS["lora"]
    merged = lora.merge(adapter, base, trained(adapter, base))
    for name in lora.MATRICES:
        change = np.asarray(merged["layers"][name] - base["layers"][name])
        assert (np.linalg.matrix_rank(change, tol=1e-4) == 4).all()


def loss_of(adapter, model):
    def make(model):
        def loss(params, frozen):
            assert "base" not in frozen
            h, _ = model.hidden(params, TOKENS, np.tile(np.arange(12), (2, 1)), np.full(TOKENS.shape, 1024))
            return jnp.mean(jnp.square(model.unembed(params, h)))

        return loss

    return lora.on_base(adapter, model, make)


@each_kind
def test_gradients_are_of_the_adapters_and_at_the_start_none_of_a(adapter):
    base = base_of()
    loss = jax.jit(jax.grad(loss_of(adapter, decoder.build(CONFIG))))
    start = lora.init(adapter, CONFIG, base, jax.random.key(2))
    first, later = loss(start, {"base": base}), loss(trained(adapter, base), {"base": base})
    assert jax.tree.structure(first) == jax.tree.structure(start)
    for name, gradient in first["layers"].items():
        assert (np.abs(gradient).max() > 0) == (not name.endswith("_lora_a")), name
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(later))


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_gradients_equal_those_through_the_merged_weights(kind):
    """d loss / d B = scale A^T (d loss / d W), and likewise for A.

    Under magnitudes m of sums with norms n it is that times m / n, which is held fixed.
    """
    adapter, base, model = KINDS[kind], base_of(), decoder.build(CONFIG)
    adapters = trained(adapter, base)
    gradient = jax.jit(jax.grad(loss_of(adapter, model)))(adapters, {"base": base})["layers"]

    def plain(params):
        h, _ = model.hidden(params, TOKENS, np.tile(np.arange(12), (2, 1)), np.full(TOKENS.shape, 1024))
        return jnp.mean(jnp.square(model.unembed(params, h)))

    whole = jax.jit(jax.grad(plain))(lora.merge(adapter, base, adapters))["layers"]
    for name in ("q", "down"):
        a, b = adapters["layers"][f"{name}_lora_a"], adapters["layers"][f"{name}_lora_b"]
        of_w = whole[name]
        if adapter.magnitudes:
            norms = jnp.linalg.norm(base["layers"][name] + adapter.scale * a @ b, axis=-2)
            of_w = of_w * (adapters["layers"][f"{name}_magnitude"] / norms)[:, None]
        close(gradient[f"{name}_lora_b"], adapter.scale * jnp.swapaxes(a, 1, 2) @ of_w, 1e-4)
        close(gradient[f"{name}_lora_a"], adapter.scale * of_w @ jnp.swapaxes(b, 1, 2), 1e-4)


def test_magnitudes_are_the_norms_and_forget_the_length_of_the_direction():
    adapter, base = KINDS["dora"], base_of()
    adapters = trained(adapter, base)
    merged = lora.merge(adapter, base, adapters)
    norms = jnp.linalg.norm(merged["layers"]["q"], axis=-2)
    close(norms, jnp.abs(adapters["layers"]["q_magnitude"]))
    # Both parts of the sum doubled: the same direction.
    longer = {n: 2 * x if n.endswith("_lora_b") else x for n, x in adapters["layers"].items()}
    doubled = base | {"layers": base["layers"] | {n: 2 * base["layers"][n] for n in lora.MATRICES}}
    close(lora.merge(adapter, doubled, {"layers": longer})["layers"]["q"], merged["layers"]["q"])
    # With the magnitudes of the sum itself nothing is scaled: LoRA.
    free = dataclasses.replace(adapter, magnitudes=False)
    plain = lora.merge(free, base, {"layers": {n: x for n, x in adapters["layers"].items() if "magn" not in n}})
    own = {f"{n}_magnitude": jnp.linalg.norm(plain["layers"][n], axis=-2) for n in lora.MATRICES}
    close(logits(lora.attach(adapter, base, {"layers": adapters["layers"] | own})), logits(plain))


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("reward_heads", [0, 2])
def test_written_adapters_are_read_back(kind, reward_heads, tmp_path):
    config, adapter = dataclasses.replace(CONFIG, reward_heads=reward_heads), KINDS[kind]
    base = base_of(config)
    adapters = trained(adapter, base, config)
    lora.save(tmp_path / "out", adapter, config, adapters, base_name="somewhere")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    again, loaded = lora.load(tmp_path / "out", config)
    assert again == adapter
    jax.tree.map(np.testing.assert_array_equal, loaded, adapters)
    if reward_heads:  # trained whole, in the place of the base's
        h = jnp.ones((1, 3, 32))
        got = heads.token_scores(lora.attach(adapter, base, adapters), h)
        close(got, h @ adapters["reward_head"])
    with pytest.raises(FileExistsError, match="overwrite=True"):
        lora.save(tmp_path / "out", adapter, config, adapters)


PEFT = {
    "lora": ("llama", {}),
    "some_targets": ("llama", {}),
    "rank_stabilized": ("llama", {"use_rslora": True}),
    "dora": ("llama", {"use_dora": True}),
    "gpt2": ("gpt2", {"target_modules": ["attn.c_proj", "mlp.c_fc"]}),
}


@pytest.mark.parametrize("name", PEFT)
def test_peft_computes_the_same_both_ways(name, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    kind, extra = PEFT[name]
    config = GPT2 if kind == "gpt2" else CONFIG
    adapter = lora.Adapter(4, 8.0, ("o", "up")) if kind == "gpt2" else KINDS[name]
    hugging_face.save(tmp_path / "base", config, base_of(config))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)

    # Ours, read by peft.
    base = base_of(config)
    adapters = trained(adapter, base, config)
    lora.save(tmp_path / "ours", adapter, config, adapters, base_name=str(tmp_path / "base"))
    with torch.no_grad():
        expected = peft.PeftModel.from_pretrained(theirs, tmp_path / "ours")(torch.tensor(TOKENS)).logits.numpy()
    close(logits(lora.attach(adapter, base, adapters), config), expected, 1e-4)

    # Theirs, read by us.
    targets = [f"{t}_proj" for t in adapter.targets]
    settings = {"r": adapter.rank, "lora_alpha": 8, "target_modules": targets, "task_type": "CAUSAL_LM"} | extra
    base_model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    settings["lora_alpha"] = int(adapter.alpha)
    model = peft.get_peft_model(base_model, peft.LoraConfig(**settings)).eval()
    torch.manual_seed(0)
    for parameter_name, parameter in model.named_parameters():
        if "lora_" in parameter_name:
            torch.nn.init.normal_(parameter, 1.0 if "magnitude" in parameter_name else 0.0, 0.15)
    model.save_pretrained(tmp_path / "theirs")
    loaded_adapter, loaded = lora.load(tmp_path / "theirs", config)
    assert loaded_adapter == adapter
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS)).logits.numpy()
    close(logits(lora.attach(adapter, base, loaded), config), expected, 1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type = 'IA3' is not supported"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern = "),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save are not supported"),
        ({"r": 5}, r"lora_A.weight has shape \(4, 32\), this model needs \(5, 32\)"),
        ({"use_dora": True}, "lora_magnitude_vector is missing"),
    ],
)
def test_adapters_that_do_not_fit_are_named(change, message, tmp_path):
    adapter = KINDS["lora"]
    lora.save(tmp_path / "out", adapter, CONFIG, trained(adapter, base_of()))
    path = tmp_path / "out" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        lora.load(tmp_path / "out", CONFIG)


def test_tensors_too_many_or_too_few_are_named(tmp_path):
    adapter = KINDS["some_targets"]
    lora.save(tmp_path / "out", adapter, CONFIG, trained(adapter, base_of()))
    path = tmp_path / "out" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"base_model.model.model.layers.0.mlp.gate_proj.lora_C": np.ones(2)}, path)
    with pytest.raises(ValueError, match=r"no place for: base_model.model.model.layers.0.mlp.gate_proj.lora_C"):
        lora.load(tmp_path / "out", CONFIG)
    lost = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
    save_file({k: v for k, v in tensors.items() if k != lost}, path)
    with pytest.raises(ValueError, match=f"tensor {lost} is missing"):
        lora.load(tmp_path / "out", CONFIG)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank must be at least 1"),
        ({"alpha": 0.0}, "alpha must be > 0"),
        ({"targets": ("q", "head")}, "targets must be some of"),
        ({"targets": ()}, "targets must be some of"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        lora.Adapter(**({"rank": 4, "alpha": 8.0} | settings))


def test_adapters_the_model_cannot_have_are_named(tmp_path):
    base = base_of(GPT2)
    with pytest.raises(ValueError, match="target 'gate' is not in the model"):
        lora.init(KINDS["lora"], GPT2, base, jax.random.key(0))
    with pytest.raises(ValueError, match="rank 33 is above the 32"):
        lora.init(lora.Adapter(33, 1.0), CONFIG, base_of(), jax.random.key(0))
    fused = lora.Adapter(2, 1.0, ("q",))
    with pytest.raises(ValueError, match="adapters of q cannot be written"):
        lora.save(tmp_path / "out", fused, GPT2, trained(fused, base, GPT2))


# --- quantised bases


@pytest.mark.parametrize("form", quantized.FORMATS)
def test_a_quantised_base_is_the_model_of_its_read_back_weights(form):
    adapter, base = KINDS["lora"], base_of()
    coarse = lora.quantize_base(base, form)
    read_back = base | {"layers": jax.tree.map(lambda a: a, coarse["layers"])}
    read_back["layers"] = {name: quantized.dense(array) for name, array in coarse["layers"].items()}
    close(logits(coarse), logits(read_back))
    adapters = trained(adapter, base)
    unmerged = logits(lora.attach(adapter, coarse, adapters))
    close(unmerged, logits(lora.attach(adapter, read_back, adapters)))
    close(logits(lora.merge(adapter, coarse, adapters)), unmerged)
    gradient = jax.grad(loss_of(adapter, decoder.build(CONFIG)))(adapters, {"base": coarse})
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))


def matrix(inputs=128, outputs=6):
    return jax.random.normal(jax.random.key(0), (2, inputs, outputs))


def test_nf4_has_the_levels_of_the_paper():
    """Quantiles of a normal variable: 8 above zero, 7 below and zero, divided by the largest (appendix E)."""
    from scipy.stats import norm

    offset = 0.5 * ((1 - 1 / 32) + (1 - 1 / 30))
    above, below = (norm.ppf(np.linspace(offset, 0.5, n)[:-1]) for n in (9, 8))
    levels = np.sort(np.concatenate([above, -below, [0.0]])) / above.max()
    assert len(levels) == 16
    given = np.concatenate([levels, np.full(48, 0.01)])[None, :, None]  # one block, of scale 1
    read = quantized.dense(quantized.quantize(jnp.asarray(given, jnp.float32), "nf4"))
    np.testing.assert_allclose(read[0, :16, 0], levels, atol=1e-6)
    assert (np.asarray(read[0, 16:, 0]) == 0).all()
    np.testing.assert_allclose(levels[[0, 1, 7, 8, 14, 15]], [-1, -0.6961928, 0, 0.0795803, 0.7229568, 1], atol=1e-6)


@pytest.mark.parametrize("form", quantized.FORMATS)
def test_quantisation_is_idempotent_scales_along_and_keeps_the_largest_of_a_block(form):
    w = matrix()
    read = quantized.dense(quantized.quantize(w, form))
    close(quantized.dense(quantized.quantize(read, form)), read, 1e-2 if form == "int8" else 1e-6)
    close(quantized.dense(quantized.quantize(4 * w, form)), 4 * read, 1e-6)
    blocks, back = (np.asarray(x).reshape(2, 2, 64, 6) for x in (w, read))
    at = np.abs(blocks).argmax(axis=2)[:, :, None]
    largest = [np.take_along_axis(x, at, axis=2) for x in (back, blocks)]
    np.testing.assert_allclose(*largest, rtol=1e-6 if form == "nf4" else 5e-3)


def test_nf4_is_nearer_to_normal_weights_than_even_steps_of_4_bits():
    w = np.asarray(matrix(512, 16))
    blocks = w.reshape(2, 8, 64, 16)
    scale = np.abs(blocks).max(axis=2, keepdims=True)
    even = np.round(blocks / scale * 7) / 7 * scale
    read = np.asarray(quantized.dense(quantized.quantize(jnp.asarray(w), "nf4"))).reshape(blocks.shape)
    assert np.square(read - blocks).mean() < 0.9 * np.square(even - blocks).mean()


def test_an_unknown_form_is_named():
    with pytest.raises(ValueError, match=r"must be one of .'nf4', 'int8'"):
        quantized.quantize(matrix(), "fp3")
