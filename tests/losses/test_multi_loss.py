"""Weighted sums of losses on the same pairs, through a whole training step, against the identities of the catalogue."""

import numpy as np
import tiny_steps

MEMBERS = {
    "dpo": {"beta": 0.5},
    "bco_pair": {"beta": 0.3},
    "sft": {"side": "chosen", "reduction": "token_mean"},
}


def loss(**weights):
    spec = {name: {**MEMBERS[name], "weight": weight} for name, weight in weights.items()}
    return float(tiny_steps.take(spec, tiny_steps.batch())[2]["loss"])


def test_one_member_with_weight_one_is_that_loss_and_the_sum_is_linear_in_the_weights():
    alone = {name: loss(**{name: 1.0}) for name in MEMBERS}
    unweighted = tiny_steps.take({"dpo": MEMBERS["dpo"]}, tiny_steps.batch())[2]
    assert alone["dpo"] == float(unweighted["loss"])
    for weights in ((0.8, 0.2, 1.0), (1.0, 1.0, 1.0), (1.0, 0.0, -0.5)):
        mixture = dict(zip(MEMBERS, weights, strict=True))
        np.testing.assert_allclose(loss(**mixture), sum(w * alone[n] for n, w in mixture.items()), rtol=1e-5)


def test_members_have_hyperparameters_of_their_own():
    spec = {"dpo": {"beta": 0.5}, "bco_pair": {"beta": 0.3}}
    logs = tiny_steps.take(spec, tiny_steps.batch())[2]
    for name in spec:
        np.testing.assert_allclose(logs[f"loss/{name}"], loss(**{name: 1.0}), rtol=1e-6)
