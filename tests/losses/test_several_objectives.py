"""Identities of the losses for several objectives, and their optima in tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import B, K, pair, ranked_list

from alignment import losses

RNG = np.random.default_rng(0)
PAIR = {k: np.float32(v) for k, v in pair(RNG).items()}
MARGINS = [RNG.normal(size=(B, 2)).astype(np.float32) for _ in range(2)]


def modpo(chosen=MARGINS[0], rejected=MARGINS[1], **hyper):
    return losses.modpo(*PAIR.values(), chosen, rejected, **{"margin_shares": (0.5, 0.5), **hyper})


def test_modpo_of_the_trained_objective_alone_is_dpo():
    np.testing.assert_allclose(modpo(share=1.0, beta=0.3), losses.dpo(*PAIR.values(), beta=0.3), rtol=1e-6)


def test_modpo_with_equal_margin_rewards_is_dpo_with_beta_over_the_share():
    got = modpo(MARGINS[0], MARGINS[0], share=0.25, beta=0.1)
    np.testing.assert_allclose(got, losses.dpo(*PAIR.values(), beta=0.4), rtol=1e-5)


def test_modpo_does_not_see_what_is_added_to_the_margin_rewards_of_a_prompt():
    shift = RNG.normal(size=(B, 1)).astype(np.float32)
    np.testing.assert_allclose(modpo(MARGINS[0] + shift, MARGINS[1] + shift), modpo(), rtol=1e-4, atol=1e-5)


def test_the_optimum_of_modpo_in_a_table_is_the_closed_form_front():
    """Bradley-Terry labels of r_1 on all pairs of 5 answers: pi goes as ref exp((w r_1 + (1 - w) r_2) / beta)."""
    rng = np.random.default_rng(1)
    r1, r2 = rng.normal(size=(2, 5)).astype(np.float32)
    reference, beta = jnp.log(jnp.asarray(rng.dirichlet(np.ones(5)), jnp.float32)), 1.0
    i, j = (x.reshape(-1) for x in np.meshgrid(np.arange(5), np.arange(5), indexing="ij"))
    i, j = i[i != j], j[i != j]
    label = 1 / (1 + np.exp(r1[j] - r1[i]))

    for share in (0.3, 0.7):

        def loss(logits, share=share):
            logps = jax.nn.log_softmax(logits)
            values = losses.modpo(
                logps[i], logps[j], reference[i], reference[j], r2[i][:, None], r2[j][:, None], beta=beta, share=share
            )
            return jnp.sum(label * values)

        logits = jax.lax.fori_loop(0, 3000, lambda _, x, f=loss: x - 0.02 * jax.grad(f)(x), reference)
        expected = jax.nn.softmax(reference + (share * r1 + (1 - share) * r2) / beta)
        np.testing.assert_allclose(jax.nn.softmax(logits), expected, atol=2e-3)


IDS = np.array([0, 1, 0, 1, 1, 0, 0, 0], np.int32)
ALL = np.ones(B, bool)


def test_mah_dpo_is_the_mean_over_heads_of_the_mean_over_their_pairs():
    each = np.asarray(losses.dpo(*PAIR.values()))
    got = np.asarray(losses.mah_dpo(*PAIR.values(), IDS, ALL)).mean()
    np.testing.assert_allclose(got, 0.5 * each[IDS == 0].mean() + 0.5 * each[IDS == 1].mean(), rtol=1e-5)


def test_mah_dpo_of_one_head_is_dpo_and_absent_heads_take_no_weight():
    each = losses.dpo(*PAIR.values())
    one = losses.mah_dpo(*PAIR.values(), 0 * IDS, ALL, head_weights=(1.0,))
    np.testing.assert_allclose(one, each, rtol=1e-6)
    absent = losses.mah_dpo(*PAIR.values(), 0 * IDS, ALL, head_weights=(0.25, 0.75))
    np.testing.assert_allclose(absent, each, rtol=1e-6)


def test_mah_dpo_begins_at_log_two():
    same = [PAIR["reference_chosen_logps"], PAIR["reference_rejected_logps"]] * 2
    np.testing.assert_allclose(np.mean(losses.mah_dpo(*same, IDS, ALL)), np.log(2), rtol=1e-6)


def test_costs_of_zero_lose_three_log_two_and_the_larger_cost_belongs_to_the_rejected():
    harmful, harmless = np.ones(1, bool), np.zeros(1, bool)
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    np.testing.assert_allclose(losses.safe_rlhf_cost(zero, zero, harmless, harmful), 3 * np.log(2), rtol=1e-6)
    right = losses.safe_rlhf_cost(-one, one, harmless, harmful)
    assert right < losses.safe_rlhf_cost(one, -one, harmless, harmful)


LIST = {k: np.float32(v) if v.dtype.kind == "f" else v for k, v in ranked_list(np.random.default_rng(3)).items()}
NAMES = ("policy_responses_logps", "reference_responses_logps", "labels")
JUDGED = np.random.default_rng(4).random((B, K)) < 0.5


def codpo(judged, labels=LIST["labels"], **hyper):
    return np.asarray(losses.cgpo_codpo(*[LIST[n] for n in NAMES[:2]], labels, judged, LIST["responses_mask"], **hyper))


def by_hand(judged, labels, row, beta):
    """The pair of one list, chosen with plain loops."""
    there = LIST["responses_mask"][row].any(-1)
    good = [k for k in range(K) if there[k] and judged[row, k]]
    bad = [k for k in range(K) if there[k] and not judged[row, k]] or [k for k in range(K) if there[k]]
    if not good:
        return 0.0
    w, loser = max(good, key=lambda k: labels[row, k]), min(bad, key=lambda k: labels[row, k])
    ratio = LIST["policy_responses_logps"][row] - LIST["reference_responses_logps"][row]
    return np.logaddexp(0, -beta * (ratio[w] - ratio[loser]))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("judged", [JUDGED, np.ones((B, K), bool), np.zeros((B, K), bool)])
def test_codpo_pairs_the_best_satisfying_with_the_worst_violating_whatever_the_sign_of_rewards(judged, sign):
    labels = sign * (LIST["labels"] + 1)
    got = codpo(judged, labels, beta=0.3, nll_weight=0.0)
    np.testing.assert_allclose(got, [by_hand(judged, labels, row, 0.3) for row in range(B)], rtol=1e-4, atol=1e-6)


def test_codpo_where_policy_and_reference_agree_is_log_two_and_the_likelihood():
    everyone, logps = np.ones((B, K), bool), LIST["reference_responses_logps"]
    got = losses.cgpo_codpo(logps, logps, LIST["labels"], everyone, LIST["responses_mask"], nll_weight=2.0)
    there = LIST["responses_mask"].any(-1)
    best = np.where(there, LIST["labels"], -np.inf).argmax(1)
    lengths = LIST["responses_mask"].sum(-1)[np.arange(B), best]
    np.testing.assert_allclose(got, np.log(2) - 2 * logps[np.arange(B), best] / lengths, rtol=1e-5)


NO_BASELINE = np.zeros(B, np.float32)


def crraft(judged, kl_max=1e9, baselines=NO_BASELINE, labels=LIST["labels"], behaviour=None):
    behaviour = LIST["reference_responses_logps"] if behaviour is None else behaviour
    return np.asarray(
        losses.cgpo_crraft(
            LIST["policy_responses_logps"], behaviour, LIST["reference_responses_logps"], labels, baselines, judged,
            LIST["responses_mask"], kl_max=kl_max,
        )
    )  # fmt: skip


def test_crraft_without_an_eligible_response_is_zero():
    np.testing.assert_array_equal(crraft(np.zeros((B, K), bool)), 0)
    far = LIST["reference_responses_logps"] + 6.0
    np.testing.assert_array_equal(crraft(np.ones((B, K), bool), kl_max=5.0, behaviour=far), 0)


def test_crraft_with_a_full_reward_is_rejection_sampling():
    everyone = np.ones((B, K), bool)
    best = np.where(LIST["responses_mask"].any(-1), LIST["labels"], -np.inf).argmax(1)
    got = crraft(everyone, baselines=np.full(B, -50, np.float32))
    np.testing.assert_allclose(got, -LIST["policy_responses_logps"][np.arange(B), best], rtol=1e-5)
