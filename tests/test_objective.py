"""Binding kernels to data: what a config may say, what it is told otherwise, before anything is compiled."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alignment.losses.links
import alignment.losses.margins
import alignment.metrics
import alignment.policy_gradients
from alignment import objective, statistics
from alignment.losses.stateful import StatefulKernel

PAIR = ("chosen", "rejected")


def bind(spec, sides=PAIR, columns=(), namespace=alignment.losses):
    return objective.bind(spec, namespace, "objective", sides, columns)


def kernels(**functions):
    module = types.SimpleNamespace(**functions)
    module.__name__, module.__all__ = "alignment.losses", list(functions)
    return module


def test_arguments_are_moved_to_the_side():
    (term,) = bind({"sft": {"side": "rejected"}})
    assert set(term.arguments) == {"policy_rejected_token_logps", "rejected_mask"} or all(
        "rejected" in a for a in term.arguments
    )


def test_one_kernel_serves_twice_under_names_of_its_own():
    terms = bind({"a": {"kernel": "sft", "side": "chosen"}, "b": {"kernel": "sft", "side": "rejected", "weight": -0.1}})
    assert [(t.name, t.weight) for t in terms] == [("a", 1.0), ("b", -0.1)]
    assert terms[0].kernel is terms[1].kernel


def test_hyperparameters_reach_the_kernel():
    def k(policy_chosen_logps, *, scale: float = 1.0):
        return scale * policy_chosen_logps

    (term,) = bind({"k": {"scale": 3.0}}, namespace=kernels(k=k))
    computed = {"policy_token_logps": jnp.asarray([[[1.0, 2.0], [5.0, 7.0]]])}
    batch = {"valid": jnp.ones(1, bool), "mask": jnp.ones((1, 2, 2), bool)}
    sums, _ = objective.evaluate([term], {}, PAIR, computed, batch)
    assert float(sums["k"]) == 9.0


def test_weights_and_sums_ignore_rows_that_only_pad():
    def k(policy_chosen_token_logps):
        return policy_chosen_token_logps

    mask = jnp.asarray([[[True, True, False]] * 2, [[True, True, True]] * 2])
    batch = {"valid": jnp.asarray([True, False]), "mask": mask}
    values = jnp.asarray(np.where(mask, 2.0, 0.0)).at[1].set(jnp.nan)
    for reduction, wanted, mean in [("token_mean", 2.0, 2.0), ("sequence_mean", 1.0, 2.0), ("sequence_sum", 1.0, 4.0)]:
        (term,) = bind({"k": {"reduction": reduction}}, namespace=kernels(k=k))
        assert float(objective.weights([term], PAIR, batch)["k"]) == wanted
        sums, _ = objective.evaluate([term], {}, PAIR, {"policy_token_logps": values}, batch)
        assert float(sums["k"]) / wanted == mean


def test_reference_is_not_differentiated():
    needs = statistics.needs_of(objective.names_of(bind({"dpo": {}})))
    assert needs.policy == {"token_logps"} and needs.frozen == {"reference": {"token_logps"}}


def test_state_of_a_method_takes_its_hyperparameters():
    terms = bind({"lcpo": {"num_annotators": 3, "eta_0": 0.7}}, columns=("annotator_ids",))
    np.testing.assert_allclose(objective.initial_states(terms)["lcpo"].eta, [0.7] * 3, rtol=1e-6)
    assert objective.initial_states(bind({"dpo": {}})) == {}


def per_token(policy_chosen_token_logps):
    return policy_chosen_token_logps


def of_both(policy_chosen_token_logps, policy_rejected_token_logps):
    return policy_chosen_token_logps - policy_rejected_token_logps


def misspelt(policy_chosen_logp):
    return policy_chosen_logp


def needing(policy_chosen_logps, *, must):
    return must * policy_chosen_logps


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"dpoo": {}}, ["config.objective.dpoo", "dpo"]),
        ({"dpo": {"betta": 1}}, ["config.objective.dpo.betta", "beta"]),
        ({"dpo": {"beta": -1.0}}, ["config.objective.dpo", "beta"]),
        ({"dpo": {"reduction": "token_mean"}}, ["config.objective.dpo.reduction", "example_mean"]),
        ({"sft": {"side": "left"}}, ["config.objective.sft.side", "left", "chosen"]),
        ({"sft": {}}, ["sft", "side"]),
        ({"lcpo": {}}, ["lcpo", "annotator_ids", "none"]),
        ({"lcpo": {"alpha": 2.0}}, ["lcpo"]),
        ({"lipo_lambda": {}}, ["lipo_lambda", "responses", "chosen"]),
    ],
)
def test_what_does_not_fit_is_named(spec, words):
    with pytest.raises(ValueError) as error:
        bind(spec)
    assert all(w in str(error.value) for w in words), error.value


@pytest.mark.parametrize(
    ("kernel", "settings", "words"),
    [
        (misspelt, {}, ["misspelt", "'policy_chosen_logp'", "policy_chosen_logps"]),
        (of_both, {}, ["config.objective.of_both", "chosen and rejected", "mask"]),
        (needing, {}, ["config.objective.needing.must", "required"]),
        (per_token, {"reduction": "mean"}, ["config.objective.per_token.reduction", "token_mean", "constant"]),
        (per_token, {"reduction": "constant"}, ["config.objective.per_token.reduction_length"]),
    ],
)
def test_what_does_not_fit_a_kernel_of_ones_own_is_named(kernel, settings, words):
    with pytest.raises(ValueError) as error:
        bind({kernel.__name__: settings}, namespace=kernels(**{kernel.__name__: kernel}))
    assert all(w in str(error.value) for w in words), error.value


def test_nothing_is_computed_while_binding():
    """Shapes alone: a kernel that is given numbers while it is bound would see tracers' absence."""
    seen = []

    def k(policy_chosen_logps):
        seen.append(isinstance(policy_chosen_logps, jax.core.Tracer))
        return policy_chosen_logps

    bind({"k": {}}, namespace=kernels(k=k))
    assert seen == [True]


def test_metrics_are_bound_in_the_same_way():
    (term,) = objective.bind({"token_nll": {"side": "chosen"}}, alignment.metrics, "metrics", PAIR, ())
    assert all("chosen" in a for a in term.arguments) and term.mask == "chosen_mask"
    with pytest.raises(ValueError, match=r"config\.metrics\.token_nl: .*token_nll"):
        objective.bind({"token_nl": {}}, alignment.metrics, "metrics", PAIR, ())


def test_the_mapped_axis_of_a_method_is_not_a_config_key():
    with pytest.raises(ValueError, match=r"config\.objective\.lcpo\.axis_name: unknown key"):
        bind({"lcpo": {"axis_name": "data"}}, columns=("annotator_ids",))


# ------------------------------------------------------------------------------------------- kernels named by parts


def pair_data(size=4, time=3, scale=1.0, seed=0):
    """What a step would hand to `evaluate`: token log-probs of both sides, and masks in which lengths differ."""
    rng = np.random.default_rng(seed)
    mask = rng.random((size, 2, time)) < 0.7
    mask[..., 0] = True
    logps = {
        f"{whose}_token_logps": jnp.asarray(np.where(mask, -scale * rng.gamma(1.0, size=mask.shape), 0.0), jnp.float32)
        for whose in ("policy", "reference")
    }
    return logps, {"valid": jnp.ones(size, bool), "mask": jnp.asarray(mask)}


def total_and_gradient(spec, computed, batch):
    terms = bind(spec)
    (name,) = spec

    def total(policy):
        sums, _ = objective.evaluate(terms, {}, PAIR, {**computed, "policy_token_logps": policy}, batch)
        return sums[name]

    return jax.value_and_grad(total)(computed["policy_token_logps"])


@pytest.mark.parametrize(
    ("parts", "kernel"),
    [
        ({"margin": "log_ratio", "link": "logistic", "beta": 0.5}, {"dpo": {"beta": 0.5}}),
        (
            {"margin": "length_normalized_log_ratio", "link": "squared", "beta": 1.0, "target": 2.5},
            {"ipo_length_normalized": {"tau": 0.2}},
        ),
        ({"margin": "reference_free", "link": "hinge", "beta": 0.2}, {"rso_hinge": {"gamma": 0.2}}),
    ],
)
def test_a_margin_and_a_link_are_the_kernel_of_that_form(parts, kernel):
    data = pair_data()
    value, gradient = total_and_gradient({"mine": parts}, *data)
    expected, expected_gradient = total_and_gradient(kernel, *data)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6)
    assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("link", alignment.losses.links.__all__)
@pytest.mark.parametrize("margin", alignment.losses.margins.__all__)
def test_any_margin_goes_with_any_link(margin, link):
    for scale in (0.5, 3e3):
        value, gradient = total_and_gradient({"mine": {"margin": margin, "link": link}}, *pair_data(scale=scale))
        assert np.isfinite(value) and np.isfinite(gradient).all()
        assert scale > 1 or np.abs(gradient).max() > 0


def test_no_reference_is_asked_for_by_a_margin_without_one():
    (term,) = bind({"mine": {"margin": "length_normalized", "link": "hinge"}})
    needs = statistics.needs_of(term.arguments)
    assert not needs.models and {"chosen_lengths", "rejected_lengths"} <= set(term.arguments)


def test_a_weighting_is_looked_up_and_multiplies(monkeypatch):
    def likely(policy_chosen_logps, *, sharpness: float = 1.0):
        return jnp.exp(sharpness * policy_chosen_logps)

    weights = types.ModuleType("alignment.losses.weights")
    weights.likely, likely.__module__ = likely, weights.__name__
    monkeypatch.setitem(sys.modules, weights.__name__, weights)
    parts = {"margin": "log_ratio", "link": "logistic", "weighting": "likely", "sharpness": 0.5}
    computed, batch = pair_data(size=1)
    value, _ = total_and_gradient({"mine": parts}, computed, batch)
    plain, _ = total_and_gradient({"dpo": {}}, computed, batch)
    np.testing.assert_allclose(value, plain * jnp.exp(0.5 * computed["policy_token_logps"][0, 0].sum()), rtol=1e-6)
    with pytest.raises(ValueError, match=r"config\.objective\.mine\.weighting = 'likly': .*nearest: likely"):
        bind({"mine": {**parts, "weighting": "likly"}})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"margin": "log_ration", "link": "hinge"}, ["mine.margin = 'log_ration'", "margins", "nearest: log_ratio"]),
        ({"margin": "log_ratio", "link": "hing"}, ["mine.link = 'hing'", "links", "nearest: hinge"]),
        ({"margin": "ratios_of_sides", "link": "hinge"}, ["no such margin"]),
        ({"margin": "log_ratio"}, ["mine.link", "missing"]),
        ({"link": "hinge"}, ["mine.margin", "missing"]),
        ({"margin": "log_ratio", "link": "hinge", "kernel": "dpo"}, ["mine.kernel", "either"]),
        ({"margin": "log_ratio", "link": "hinge", "tau": 1.0}, ["mine.tau", "unknown key", "offset"]),
        ({"margin": "log_ratio", "link": "hinge", "offset": -1.0}, ["mine", "offset must lie in [0, inf)"]),
    ],
)
def test_parts_that_do_not_fit_are_named(settings, words):
    with pytest.raises(ValueError) as error:
        bind({"mine": settings})
    assert all(w in str(error.value) for w in words), error.value


def test_no_kernel_has_a_hyperparameter_that_a_config_could_not_set():
    for name in alignment.losses.__all__:
        found = getattr(alignment.losses, name)
        kernel = found.loss if hasattr(found, "loss") else found
        assert not set(objective.RESERVED) & set(statistics.hyperparameters_of(kernel)), name


# --- estimators of a rollout -----------------------------------------------------------------------------------------


def _add_one(rewards):
    return rewards + 1


def _double(rewards):
    return 2 * rewards


def _spread(rewards, mask):
    return jnp.where(mask, rewards[:, None], 0.0)


def _both(token_rewards):
    return {"token_advantages": token_rewards, "token_returns": 3 * token_rewards}


def _count_init(*, start: float = 0.0):
    return jnp.float32(start)


def _count_loss(rewards, state, *, start: float = 0.0):
    return rewards + state, {"rewards": rewards}


def _count_update(state, aux, *, start: float = 0.0, axis_name=None):
    return state + aux["rewards"].size


ESTIMATORS = types.SimpleNamespace(
    __name__="estimators",
    __all__=["add_one", "double", "spread", "both", "count"],
    add_one=_add_one, double=_double, spread=_spread, both=_both,
    count=StatefulKernel(_count_init, _count_loss, _count_update),
)  # fmt: skip
ROLLOUT = {"rewards": jnp.arange(6.0).reshape(2, 3), "mask": jnp.ones((2, 3, 4), bool), "valid": jnp.ones((2, 3), bool)}


def estimated(spec, states=None):
    columns = ["rewards", "valid"]
    bound = objective.bind_estimators(spec, ESTIMATORS, "shaping", ("rewards", "token_rewards"), columns)
    return objective.estimate(bound, states or objective.initial_states([e.term for e in bound]), {}, ROLLOUT)


def test_estimators_run_by_their_order_and_then_by_name():
    batch, _ = estimated({"double": {}, "add_one": {"order": 1}})
    np.testing.assert_array_equal(batch["rewards"], 2 * ROLLOUT["rewards"] + 1)
    batch, _ = estimated({"double": {}, "add_one": {}})
    np.testing.assert_array_equal(batch["rewards"], 2 * (ROLLOUT["rewards"] + 1))


def test_what_an_estimator_gives_is_named_by_its_shape_its_key_or_its_dictionary():
    spec = {"spread": {}, "both": {"order": 1}, "double": {"order": 2, "gives": "advantages"}}
    batch, _ = estimated(spec)
    np.testing.assert_array_equal(batch["advantages"], 2 * ROLLOUT["rewards"])
    np.testing.assert_array_equal(batch["rewards"], ROLLOUT["rewards"])
    assert batch["token_rewards"].shape == (2, 3, 4)
    np.testing.assert_array_equal(batch["token_returns"], 3 * batch["token_rewards"])


def test_an_estimator_with_a_memory_keeps_it_from_rollout_to_rollout():
    first, states = estimated({"count": {"start": 2.0}})
    np.testing.assert_array_equal(first["rewards"], ROLLOUT["rewards"] + 2)
    second, _ = estimated({"count": {"start": 2.0}}, states)
    np.testing.assert_array_equal(second["rewards"], ROLLOUT["rewards"] + 8)


@pytest.mark.parametrize(
    "spec,words",
    [
        ({"double": {"weight": 1.0}}, "config.shaping.double.weight: belongs to terms of an objective"),
        ({"double": {"gives": "chosen_logps"}}, "unknown statistic 'chosen_logps'"),
        ({"double": {"gives": "policy_logps"}}, "'policy_logps' is not a column"),
        ({"both": {}}, "needs 'token_rewards'"),
        ({"doubled": {}}, "nearest: double"),
        ({"count": {"begin": 1.0}}, "config.shaping.count.begin: unknown key"),
    ],
)
def test_an_estimator_that_does_not_fit_is_refused_with_its_key(spec, words):
    with pytest.raises(ValueError, match=words):
        estimated(spec)


def test_two_packages_with_one_name_are_not_joined():
    with pytest.raises(ValueError, match="both have a kernel 'add_one'"):
        objective.union(ESTIMATORS, ESTIMATORS)


def test_the_number_of_prompts_is_filled_in_where_a_kernel_remembers_prompts():
    spec = {"hapo": {"weight": 0.5}, "mine": {"kernel": "spo", "num_prompts": 12}, "clip_rewards": {"limit": 1.0}}
    filled = objective.with_num_prompts(spec, alignment.policy_gradients, "shaping", 9)
    assert filled == {"hapo": {"weight": 0.5, "num_prompts": 9}, "mine": spec["mine"], "clip_rewards": {"limit": 1.0}}
    with pytest.raises(ValueError, match=r"config.shaping.mine.num_prompts: 12 places for prompts numbered up to 12"):
        objective.with_num_prompts(spec, alignment.policy_gradients, "shaping", 13)
