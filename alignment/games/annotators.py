"""MaxMin-RLHF on tables: groups of annotators found by expectation-maximisation, the policy that is fair to them.

The E step is `alignment.multi_objective.maxmin_assignments`, and `maxmin_rewards` there is the step of a policy that is
too large for a table.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.analysis import kl_regularised_optimum
from alignment.multi_objective import maxmin_assignments

Array = jax.Array


class AnnotatorGroups(NamedTuple):
    """weights: float32 [G, F], of the rewards; assignments: float32 [B, G], one 1 a row; nlls: float32 [rounds], the
    mean negative log-likelihood after each round."""

    weights: Array
    assignments: Array
    nlls: Array


class FairPolicy(NamedTuple):
    """logps: float32 [Y], log pi*; group_weights: float32 [G], w*, of the groups' rewards in its tilt."""

    logps: Array
    group_weights: Array


def maxmin_em(
    key: Array, differences: Array, annotator_ids: Array, *, groups: int = 2, rounds: int = 20, inner_steps: int = 20
) -> AnnotatorGroups:
    """Linear rewards of `groups` groups from labels with annotator ids, by hard EM: the likelihood falls in no round.

    E: each annotator belongs to the reward that explains all of its labels best. M: Bradley-Terry of each reward on the
    labels of its annotators, by steps with the bound X^T X / 4 of the Hessian, each of which raises the likelihood. A
    reward that no annotator is left to is drawn anew. EM ends where it starts from: try several keys, take the
    smallest of the last nlls.

    Args:
      key: a PRNG key, of the first rewards and of those drawn anew.
      differences: phi(chosen) - phi(rejected) of each pair.
      annotator_ids: who labelled it.
      groups: at least 1; one is a Bradley-Terry reward model.
      rounds, inner_steps: of EM and of each M step, at least 1.

    Shapes: differences `[B, F]`, annotator_ids (integer) `[B]`; an `AnnotatorGroups`.

    Raises:
      AssertionError: shapes do not agree or a wrong dtype.
      ValueError: a number below 1.

    Paper: Chakraborty et al., 2024, arXiv 2402.08925 (MaxMin-RLHF).
    """
    (x,) = checks.floats(differences=differences)
    checks.integers(annotator_ids=annotator_ids)
    checks.leading_shape(annotator_ids=annotator_ids, differences=x)
    for name, value in (("groups", groups), ("rounds", rounds), ("inner_steps", inner_steps)):
        checks.positive_integer(name, value)
    valid = jnp.ones(len(x), bool)

    def random_weights(key):
        return jax.random.normal(key, (groups, x.shape[-1]))

    def fit(weights, mask):
        bound = (x * mask[:, None]).T @ x / 4
        inverse = jnp.linalg.pinv(bound, rtol=1e-6, hermitian=True)

        def step(weights, _):
            return weights + inverse @ ((mask * jax.nn.sigmoid(-x @ weights)) @ x), None

        return jax.lax.scan(step, weights, None, length=inner_steps)[0]

    def one_round(weights, key):
        assigned = maxmin_assignments(x @ weights.T, annotator_ids, valid)
        deserted = assigned.sum(0) == 0
        weights = jax.vmap(fit, in_axes=(0, 1))(weights, assigned)
        nll = -jnp.mean(jnp.sum(assigned * jax.nn.log_sigmoid(x @ weights.T), axis=-1))
        return jnp.where(deserted[:, None], random_weights(key), weights), nll

    of_start, of_rounds = jax.random.split(key)
    weights, nlls = jax.lax.scan(one_round, random_weights(of_start), jax.random.split(of_rounds, rounds))
    return AnnotatorGroups(weights, maxmin_assignments(x @ weights.T, annotator_ids, valid), nlls)


def soft_assignments(margins: Array, annotator_ids: Array, priors: Array) -> Array:
    """gamma(u, g) ~ prior_g exp(sum over the pairs of u of log s(r_g(w) - r_g(l))): the E step of soft EM.

    `maxmin_assignments` where one group explains an annotator far better than the others; with few labels it says how
    little is known.

    Args:
      margins: r_g(chosen) - r_g(rejected) of each pair under each of G rewards.
      annotator_ids: who labelled the pair.
      priors: of the groups, above 0.

    Shapes: margins `[B, G]`, annotator_ids (integer) `[B]`, priors `[G]`; result float32 `[B, G]`, rows sum to 1.

    Raises:
      AssertionError: shapes do not agree or a wrong dtype.

    Paper: not in Chakraborty et al., 2024, arXiv 2402.08925 (MaxMin-RLHF), whose EM is hard; standard practice.
    """
    (margins,), (priors,) = checks.floats(margins=margins), checks.floats(priors=priors)
    checks.integers(annotator_ids=annotator_ids)
    checks.leading_shape(annotator_ids=annotator_ids, margins=margins)
    if priors.shape != margins.shape[-1:]:
        raise AssertionError(f"priors must have shape {margins.shape[-1:]} to go with margins, got {priors.shape}")
    same = (annotator_ids[:, None] == annotator_ids[None, :]).astype(margins.dtype)
    return jax.nn.softmax(jnp.log(priors) + same @ jax.nn.log_sigmoid(margins))


def maxmin_policy(reference_logps: Array, group_rewards: Array, *, beta: float = 0.5, steps: int = 2000) -> FairPolicy:
    """The policy of the largest min over groups of E[r_g] - beta KL(pi || pi_0), by its dual.

    It is pi_0 exp(sum of w_g r_g / beta) normalised, with the weights that make beta log Z smallest; the gradient of
    that in w_g is E[r_g], so w_g <- w_g exp(-s E[r_g]) normalised, s = beta / range(r)^2. Groups with w_g > 0 end up
    with the same E[r_g], the smallest one. Not what the mean of min_g r_g(y) leads to, which is a smaller objective.

    Args:
      reference_logps: log pi_0.
      group_rewards: r_g of the responses, on one scale.
      beta: in (0, inf).
      steps: at least 1.

    Shapes: reference_logps `[Y]`, group_rewards `[G, Y]`; a `FairPolicy`.

    Raises:
      AssertionError: shapes do not agree or an array is not floating.
      ValueError: a static hyperparameter out of range.

    Paper: Chakraborty et al., 2024, arXiv 2402.08925 (MaxMin-RLHF), exactly on a finite set.
    """
    (reference,), (rewards,) = (
        checks.floats(reference_logps=reference_logps),
        checks.floats(group_rewards=group_rewards),
    )
    if rewards.ndim != 2 or reference.shape != rewards.shape[1:]:
        raise AssertionError(
            f"reference_logps and group_rewards must have shapes (Y,) and (G, Y), got {reference.shape} and "
            f"{rewards.shape}"
        )
    checks.number("beta", beta, 0.0)
    checks.positive_integer("steps", steps)
    rate = beta / jnp.maximum(jnp.square(jnp.max(rewards) - jnp.min(rewards)), 1e-12)

    def step(log_weights, _):
        policy = kl_regularised_optimum(reference, jnp.exp(log_weights) @ rewards, beta=beta)
        return jax.nn.log_softmax(log_weights - rate * (rewards @ jnp.exp(policy))), None

    even = jnp.full(len(rewards), -jnp.log(float(len(rewards))))
    weights = jnp.exp(jax.lax.scan(step, even, None, length=steps)[0])
    return FairPolicy(kl_regularised_optimum(reference, weights @ rewards, beta=beta), weights)
