"""Binding kernels to data: what a config may say, what it is told otherwise, before anything is compiled."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alignment.losses
import alignment.metrics
from alignment import objective, statistics

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
    for reduction, wanted in [("token_mean", 2.0), ("sequence_mean", 1.0)]:
        (term,) = bind({"k": {"reduction": reduction}}, namespace=kernels(k=k))
        assert float(objective.weights([term], PAIR, batch)["k"]) == wanted
        sums, _ = objective.evaluate([term], {}, PAIR, {"policy_token_logps": values}, batch)
        assert float(sums["k"]) / wanted == 2.0


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
