"""Identities of distillation, most of them through the chunked pass that computes what the kernels read."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment import losses, objective, statistics, vocabulary_walk
from alignment.models import decoder

V, D, N = 13, 6, 5


def logits_as_model(seed, count=3, scale=1.0):
    """Logits [N, V] of several models, each as hidden states and an output matrix, which the walk takes."""
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=(N, V)) * scale, jnp.float32) for _ in range(count)]


EYE = jnp.eye(V)


def walked(names, student, teacher, **settings):
    targets = jnp.zeros(N, jnp.int32)
    return vocabulary_walk.token_statistics(
        names, student, EYE, targets, None, teacher, EYE, chunk_size=4, **settings
    )  # fmt: skip


def divergence(name, student, teacher, **settings):
    return walked([name], student, teacher, **settings)[name]


def jsd(student, teacher, beta):
    forward = vocabulary_walk.numbered("token_forward_mixture_kls", beta)
    reverse = vocabulary_walk.numbered("token_mixture_kls", beta)
    got = walked([forward, reverse], student, teacher)
    return losses.gkd(got[forward], got[reverse], jnp.ones(N, bool), beta=beta)


def written_out_jsd(student, teacher, beta):
    p, q = jax.nn.softmax(student), jax.nn.softmax(teacher)
    m = beta * q + (1 - beta) * p
    return (beta * q * jnp.log(q / m) + (1 - beta) * p * jnp.log(p / m)).sum(-1)


# ------------------------------------------------------------------------------------------ divergences, token by token


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_gradient_of_the_forward_kl_is_the_difference_of_the_distributions(temperature):
    student, teacher, _ = logits_as_model(0)
    got = jax.grad(
        lambda z: losses.forward_kl_distill(
            divergence("token_forward_kls", z, teacher, temperature=temperature), jnp.ones(N, bool)
        ).sum()
    )(student)
    expected = (jax.nn.softmax(student / temperature) - jax.nn.softmax(teacher / temperature)) / temperature
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_gradient_of_the_reverse_kl_weighs_each_logit_by_its_surplus():
    student, teacher, _ = logits_as_model(1)
    value, got = jax.value_and_grad(
        lambda z: losses.reverse_kl_distill(divergence("token_kls", z, teacher), jnp.ones(N, bool)).sum()
    )(student)
    surplus = jax.nn.log_softmax(student) - jax.nn.log_softmax(teacher)
    p = jax.nn.softmax(student)
    kl = (p * surplus).sum(-1, keepdims=True)
    np.testing.assert_allclose(value, kl.sum(), rtol=1e-5)
    np.testing.assert_allclose(got, p * (surplus - kl), atol=1e-5)


def test_a_one_hot_teacher_makes_the_forward_kl_a_cross_entropy_and_the_reverse_one_large():
    student, _, _ = logits_as_model(2)
    certain = jnp.where(jnp.arange(V) == 3, 0.0, -1e4) + jnp.zeros((N, 1))
    nll = -jax.nn.log_softmax(student)[:, 3]
    np.testing.assert_allclose(divergence("token_forward_kls", student, certain), nll, rtol=1e-4)
    assert (divergence("token_kls", student, certain) > 1e3).all()  # no mass where the student has some


@pytest.mark.parametrize("name", ["token_kls", "token_forward_kls", "token_total_variations", "token_mixture_kls@0.3"])
def test_divergences_are_nothing_for_equals_and_blind_to_shifts_of_the_logits(name):
    student, teacher, _ = logits_as_model(3)
    np.testing.assert_allclose(divergence(name, student, student + 2.0), 0.0, atol=2e-6)
    value = divergence(name, student, teacher)
    assert (value > 1e-3).all()
    np.testing.assert_allclose(divergence(name, student + 1.5, teacher - 2.5), value, atol=1e-5)


@pytest.mark.parametrize("beta", [0.2, 0.5, 0.9])
def test_the_jsd_is_the_formula_symmetric_under_exchange_and_bounded(beta):
    student, teacher, _ = logits_as_model(4, scale=3.0)
    got = jsd(student, teacher, beta)
    np.testing.assert_allclose(got, written_out_jsd(student, teacher, beta), atol=2e-6)
    np.testing.assert_allclose(got, jsd(teacher, student, 1 - beta), atol=2e-6)
    most = -beta * np.log(beta) - (1 - beta) * np.log(1 - beta)
    assert (got >= -1e-6).all() and (got <= most + 1e-6).all()  # the entropy of the coin, log 2 for a fair one


def test_the_ends_of_the_jsd_are_both_kls_and_its_slope_there():
    student, teacher, _ = logits_as_model(5)
    forward, reverse = (divergence(n, student, teacher) for n in ("token_forward_kls", "token_kls"))
    np.testing.assert_allclose(jsd(student, teacher, 0.0), forward, rtol=1e-5)
    np.testing.assert_allclose(jsd(student, teacher, 1.0), reverse, rtol=1e-5)
    np.testing.assert_allclose(jsd(student, teacher, 1e-3) / 1e-3, forward, rtol=2e-2)
    np.testing.assert_allclose(jsd(student, teacher, 1 - 1e-3) / 1e-3, reverse, rtol=2e-2)


# --------------------------------------------------------------------------------------------------- whole sequences


def chain(seed, length=2, vocabulary=3):
    """Logits of every beginning of a chain, {beginning: [V]}."""
    rng = np.random.default_rng(seed)
    beginnings = [b for n in range(length) for b in itertools.product(range(vocabulary), repeat=n)]
    return {b: jnp.asarray(rng.normal(size=vocabulary), jnp.float32) for b in beginnings}


def sequences(length=2, vocabulary=3):
    return list(itertools.product(range(vocabulary), repeat=length))


def token_logps(tables, sequence):
    return jnp.stack([jax.nn.log_softmax(tables[sequence[:t]])[y] for t, y in enumerate(sequence)])


def token_kls(tables, teacher, sequence):
    logps = [[jax.nn.log_softmax(x[sequence[:t]]) for x in (tables, teacher)] for t in range(len(sequence))]
    return jnp.stack([(jnp.exp(p) * (p - q)).sum() for p, q in logps])


def sequence_kl(student, teacher):
    logps = [(token_logps(student, s).sum(), token_logps(teacher, s).sum()) for s in sequences()]
    return sum(jnp.exp(p) * (p - q) for p, q in logps)


def expected_minillm(student, teacher, behaviour, kernel, **hyper):
    """The mean of the loss over all sequences, weighed by the probability of each under what samples."""
    fixed = jax.lax.stop_gradient

    def of(s):
        mixture = token_logps(behaviour, s)
        values = kernel(
            token_logps(student, s), mixture, token_logps(teacher, s), token_kls(student, teacher, s),
            jnp.ones(len(s), bool), **hyper,
        )  # fmt: skip
        return fixed(jnp.exp(mixture.sum())) * values.sum()

    return sum(of(s) for s in sequences())


def test_without_length_normalisation_minillm_descends_the_kl_of_sequences():
    student, teacher = chain(0), chain(1)
    got = jax.grad(expected_minillm)(student, teacher, student, losses.minillm_unnormalized)
    expected = jax.grad(sequence_kl)(student, teacher)
    for beginning in student:
        np.testing.assert_allclose(got[beginning], expected[beginning], atol=1e-6)
    normalised = jax.grad(expected_minillm)(student, teacher, student, losses.minillm)
    # On two tokens only one is still to come, and the normalisation divides by 1.
    np.testing.assert_allclose(normalised[()], expected[()], atol=1e-6)


def test_samples_of_a_mixture_give_the_same_gradient_at_the_first_token():
    """There the weight of the token is the weight of all that was sampled so far; later the paper approximates."""
    student, teacher = chain(2, length=1), chain(3, length=1)
    mixed = {
        b: jnp.log(0.8 * jax.nn.softmax(student[b]) + 0.2 * jax.nn.softmax(teacher[b])) for b in student
    }  # fmt: skip

    def expected_loss(student, behaviour):
        logps = jax.nn.log_softmax(behaviour[()])
        one = jnp.ones((3, 1), bool)
        kls = jnp.broadcast_to(token_kls(student, teacher, (0,)), (3, 1))
        columns = [jax.nn.log_softmax(x[()])[:, None] for x in (student, behaviour, teacher)]
        values = losses.minillm(columns[0], columns[1], columns[2], kls, one)
        return (jax.lax.stop_gradient(jnp.exp(logps)) * values[:, 0]).sum()

    got, expected = jax.grad(expected_loss)(student, mixed), jax.grad(expected_loss)(student, student)
    np.testing.assert_allclose(got[()], expected[()], atol=1e-6)


def test_minillm_is_nothing_where_teacher_and_student_agree():
    logps, kls = jnp.asarray([[-1.0, -2.0, -0.5]]), jnp.zeros((1, 3))
    mask = jnp.ones((1, 3), bool)
    value, gradient = jax.value_and_grad(lambda p: losses.minillm(p, logps, logps, kls, mask).sum())(logps)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0.0)


def test_a_weight_past_its_bound_gives_the_surrogate_no_gradient():
    policy, mask = jnp.asarray([[-1.0, -1.0]]), jnp.ones((1, 2), bool)
    teacher, kls = jnp.asarray([[-1.0, 0.0]]), jnp.zeros((1, 2))  # the second token is worth more: a gain for the first

    def slope(behaviour):
        return jax.grad(lambda p: losses.minillm(p, behaviour, teacher, kls, mask).sum())(policy)[0, 0]

    assert slope(policy - 0.5) == 0 and slope(policy) == -1.0


def test_the_expected_loss_on_a_teachers_samples_is_its_entropy_and_the_kl_of_sequences():
    student, teacher = chain(4), chain(5)
    probability = {s: jnp.exp(token_logps(teacher, s).sum()) for s in sequences()}
    one = jnp.ones(2, bool)
    nll = sum(p * losses.sft(token_logps(student, s), one).sum() for s, p in probability.items())
    entropy = -sum(p * jnp.log(p) for p in probability.values())
    np.testing.assert_allclose(nll - entropy, sequence_kl(teacher, student), rtol=1e-5)


# ------------------------------------------------------------------------------- through the statistics of real models


def models(vocabulary=40, widths=(8, 12, 8)):
    """Student, teacher and contrast, of different widths, with parameters that differ."""
    out = []
    for seed, width in enumerate(widths):
        config = decoder.DecoderConfig(
            vocab_size=vocabulary, hidden_size=width, intermediate_size=8, num_layers=1, num_heads=2,
        )  # fmt: skip
        model = decoder.build(config)
        out.append((model, jax.tree.map(lambda x: 2.0 * x, model.init(jax.random.key(seed)))))
    return out


def rows(vocabulary=40):
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, vocabulary, (2, 6)), jnp.int32)
    index = jnp.broadcast_to(jnp.arange(6), (2, 6))
    mask = jnp.asarray([[[True] * 5], [[True] * 3 + [False] * 2]])
    return {
        "tokens": tokens, "positions": index, "segment_ids": jnp.ones_like(tokens), "targets": tokens[:, None, 1:],
        "predict_from": index[:, None, :5], "mask": mask, "last_index": mask.sum(-1).astype(jnp.int32),
        "ids": jnp.arange(2), "valid": jnp.ones(2, bool),
    }  # fmt: skip


def bound(spec):
    return objective.bind(spec, losses, "objective", ("",), ("valid",))


def computed(names, student, others, batch):
    frozen = dict(zip(("teacher", "contrast"), others, strict=False))
    return statistics.compute(statistics.needs_of(names), *student, frozen, batch, chunk_size=16)


def all_logits(model, params, batch):
    hidden, _ = model.hidden(params, batch["tokens"], batch["positions"], batch["segment_ids"])
    return model.unembed(params, hidden)[:, None, :5]


def test_the_hyperparameter_of_a_kernel_reaches_the_statistics_it_asks_for():
    terms = bound({"gkd": {"beta": 0.2}, "even": {"kernel": "gkd"}})
    student, teacher, _ = models()
    batch = rows()
    got = computed(objective.names_of(terms), student, [teacher], batch)
    sums, _ = objective.evaluate(terms, {}, ("",), got, batch)
    z, z_teacher = (all_logits(*m, batch) for m in (student, teacher))
    for name, beta in (("gkd", 0.2), ("even", 0.5)):
        want = jnp.where(batch["mask"], written_out_jsd(z, z_teacher, beta), 0.0).sum()
        np.testing.assert_allclose(sums[name], want, rtol=1e-4)


def test_a_number_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="'teacher_token_mixture_kls' depends on the hyperparameter 'beta', got None"):
        statistics.with_number("teacher_token_mixture_kls", {})
    with pytest.raises(ValueError, match=r"share of the reference in a mixture must lie in \[0, 1\]"):
        walked(["token_mixture_kls@1.5"], *logits_as_model(0, 2))


def test_the_token_rewards_of_an_autoregressive_reward_model_are_never_positive_and_add_up_to_its_reward():
    """What `genarm` trains by is what a decoder later adds, token by token."""
    student, _, _ = models()
    batch = rows()
    got = computed(["policy_token_logps"], student, [], batch)
    tokens = statistics.deliver("policy_token_logps", ("",), got, batch)
    assert (tokens <= 0).all()
    np.testing.assert_allclose(statistics.deliver("policy_logps", ("",), got, batch), tokens.sum(-1), rtol=1e-6)


def test_policy_and_teacher_are_told_apart_and_only_the_policy_is_trained():
    student, teacher, _ = models()
    batch = rows()
    names = ["policy_token_logps", "teacher_token_logps", "teacher_token_entropies", "teacher_token_kls", "mask"]
    names += ["teacher_token_features", "token_features", "teacher_token_total_variations"]
    got = computed(names, student, [teacher], batch)
    lp, lq = (jax.nn.log_softmax(all_logits(*m, batch)) for m in (student, teacher))
    at = batch["targets"][..., None]
    want = {
        "policy_token_logps": jnp.take_along_axis(lp, at, -1)[..., 0],
        "teacher_token_logps": jnp.take_along_axis(lq, at, -1)[..., 0],
        "teacher_token_entropies": -(jnp.exp(lq) * lq).sum(-1),
        "teacher_token_kls": (jnp.exp(lp) * (lp - lq)).sum(-1),
        "teacher_token_total_variations": 0.5 * jnp.abs(jnp.exp(lp) - jnp.exp(lq)).sum(-1),
    }
    for name, value in want.items():
        np.testing.assert_allclose(got[name], jnp.where(batch["mask"], value, 0.0), atol=1e-5, err_msg=name)
    assert got["teacher_token_features"].shape[-1] == 12 and got["token_features"].shape[-1] == 8

    def total(student_params, teacher_params):
        out = computed(names, (student[0], student_params), [(teacher[0], teacher_params)], batch)
        return sum(v.sum() for k, v in out.items() if k.startswith("teacher"))

    of_student, of_teacher = jax.grad(total, (0, 1))(student[1], teacher[1])
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(of_student)) > 0
    assert all(float(jnp.abs(x).max()) == 0 for x in jax.tree.leaves(of_teacher))


@pytest.mark.parametrize("same", [False, True], ids=["two models", "contrast is the teacher"])
def test_aligndistil_trains_towards_the_extrapolated_logits(same):
    """Written out with whole distributions; with alpha tiny where teacher and contrast agree."""
    terms = bound({"aligndistil": {"strength": 3.0, "beta": 0.1, "reduction": "token_mean"}})
    student, teacher, contrast = models()
    contrast = teacher if same else contrast
    batch = rows()
    z, dpo, reverse = (all_logits(*m, batch) for m in (student, teacher, contrast))
    alpha = 3.0 * jnp.abs(jax.nn.softmax(dpo) - jax.nn.softmax(reverse)).sum(-1) + 1e-3
    target = jax.nn.log_softmax(dpo + alpha[..., None] * (dpo - reverse))
    kl = (jax.nn.softmax(z) * (jax.nn.log_softmax(z) - target)).sum(-1)
    want = jnp.where(batch["mask"], 0.1 / alpha * kl, 0.0).sum()

    def loss(params):
        got = computed(objective.names_of(terms), (student[0], params), [teacher, contrast], batch)
        return objective.evaluate(terms, {}, ("",), got, batch)[0]["aligndistil"]

    np.testing.assert_allclose(loss(student[1]), want, rtol=2e-4)
    if same:
        assert alpha.max() < 1.1e-3
        got = computed(["teacher_token_kls", *objective.names_of(terms)], student, [teacher, contrast], batch)
        np.testing.assert_allclose(got["teacher_token_extrapolated_kls@3.0"], got["teacher_token_kls"], atol=1e-5)


def test_aligndistil_is_rlhf_with_the_reward_of_both_models_token_by_token():
    """(beta / alpha) KL(pi || p*) = -E_pi[r] + (beta / alpha) KL(pi || pi_dpo) + a constant of the place."""
    beta, alpha = 0.1, 0.7
    dpo, reverse, _ = logits_as_model(6)
    reward = beta * (jax.nn.log_softmax(dpo) - jax.nn.log_softmax(reverse))
    target = dpo + alpha * (dpo - reverse)

    def gap(z):
        p = jax.nn.softmax(z)
        of_reward = -(p * reward).sum(-1) + beta / alpha * divergence("token_kls", z, dpo)
        return beta / alpha * divergence("token_kls", z, target) - of_reward

    gaps = [gap(z) for z in logits_as_model(7)]
    np.testing.assert_allclose(gaps[0], gaps[1], atol=1e-5)
    np.testing.assert_allclose(gaps[0], gaps[2], atol=1e-5)


def test_a_draft_equal_to_the_target_costs_the_targets_entropy_and_learns_by_both_routes():
    _, teacher, _ = models(widths=(8, 8, 8))
    terms = bound({"specvlm_online_distill": {"reduction": "token_mean"}})
    batch = rows()
    same = computed(objective.names_of(terms), teacher, [teacher], batch)
    sums, _ = objective.evaluate(terms, {}, ("",), same, batch)
    np.testing.assert_allclose(sums["specvlm_online_distill"], 0.1 * same["teacher_token_entropies"].sum(), rtol=1e-4)
    far = jax.grad(
        lambda f: losses.specvlm_online_distill(
            jnp.zeros((1, 1)), jnp.zeros((1, 1)), f, jnp.zeros((1, 1, 2)), jnp.ones((1, 1), bool)
        ).sum()
    )(jnp.asarray([[[0.5, -3.0]]]))
    np.testing.assert_allclose(far, [[[0.25, -0.5]]])  # the mean over d of u, and of sign(u) beyond 1


def test_no_array_of_batch_time_vocabulary_exists_with_a_teacher():
    """All statistics of a teacher and of its contrast, in the program that the training step compiles."""
    vocabulary, batch, time = 65_536, 2, 128
    config = decoder.DecoderConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=8, num_layers=1, num_heads=2,
    )  # fmt: skip
    model = decoder.build(config)
    params = jax.eval_shape(model.init, jax.random.key(0))
    row = jax.ShapeDtypeStruct((batch, time), jnp.int32)
    one = jax.ShapeDtypeStruct((batch, 1, time), jnp.int32)
    mask = jax.ShapeDtypeStruct((batch, 1, time), jnp.bool_)
    columns = {"tokens": row, "positions": row, "segment_ids": row, "targets": one, "predict_from": one, "mask": mask}
    names = ["policy_token_logps", "teacher_token_logps", "teacher_token_entropies", "teacher_token_kls"]
    names += ["teacher_token_disagreements", "teacher_token_extrapolated_kls@10.0"]
    names += ["teacher_token_mixture_kls@0.5", "teacher_token_forward_mixture_kls@0.5"]
    needs = statistics.needs_of(names)

    def total(params, teacher, contrast, batch):
        frozen = {"teacher": (model, teacher), "contrast": (model, contrast)}
        out = statistics.compute(needs, model, params, frozen, batch, chunk_size=4096)
        return sum(v.sum() for v in out.values())

    program = jax.jit(jax.grad(total)).lower(params, params, params, columns).compile().as_text()
    for shape in (f"{batch},{time},{vocabulary}", f"{batch * time},{vocabulary}", f"{vocabulary},{batch * time}"):
        assert f"[{shape}]" not in program
    assert f"{batch * time},4096]" in program  # one chunk of the vocabulary at all places
