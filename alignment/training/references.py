"""References other than a frozen copy of the start: averages of models, and one that follows the policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array


def model_soup(params_1: Any, params_2: Any, *, alpha: float = 0.5) -> Any:
    """(1 - alpha) theta_1 + alpha theta_2, leaf by leaf.

    Sensible only for models of one basin: fine-tuned from the same weights, with the same tokenizer. The soup of models
    whose logits are linear in the parameters has the average of their logits.

    Args:
      params_1, params_2: parameters of the same structure and shapes.
      alpha: share of the second, in [0, 1]; at 0 and at 1 the result is exactly the first or the second.

    Shapes: pytrees of arrays; the result has the first one's types.

    Raises:
      ValueError: static alpha out of range, or the structures differ.
      AssertionError: shapes of a leaf differ.

    Paper: Chegini et al., 2024, arXiv 2411.01798 (SALSA; alpha 0.5).
    """
    checks.number("alpha", alpha, 0.0, 1.0, closed="both")

    def mix(one: Array, other: Array) -> Array:
        checks.same_shape(params_1=one, params_2=other)
        return ((1 - alpha) * one + alpha * other).astype(jnp.asarray(one).dtype)

    return jax.tree.map(mix, params_1, params_2)


def rewarded_soup(several_params: Sequence[Any], weights: Sequence[float]) -> Any:
    """theta = sum_k w_k theta_k, leaf by leaf: one model per objective, mixed by a user's weights.

    All from the same beginning, with merged weights (the factors of low-rank updates must not be averaged). For models
    whose logits are linear in the parameters it mixes the logits.

    Args:
      several_params: parameters of K models, of the same structure and shapes.
      weights: w, one for each, at least 0, with sum 1; one weight alone gives exactly that model.

    Raises:
      ValueError: weights are not K numbers of the simplex, or the structures differ.
      AssertionError: shapes of a leaf differ.

    Paper: Rame et al., 2023, arXiv 2306.04488.
    """
    checks.simplex("weights", weights, len(several_params))

    def mix(*leaves: Array) -> Array:
        checks.same_shape(**{f"params_{n}": leaf for n, leaf in enumerate(leaves, 1)})
        kept = [(w, leaf) for w, leaf in zip(weights, leaves, strict=True) if w]
        return sum(w * leaf for w, leaf in kept).astype(jnp.asarray(leaves[0]).dtype)

    return jax.tree.map(mix, *several_params)


def salsa_reward(
    rewards: Array, policy_token_logps: Array, reference_token_logps: Array, mask: Array, *, beta: float = 0.1
) -> Array:
    """Reward of each token for PPO against a soup: -beta (log pi - log pi_soup), plus r(x, y) at the last token.

    Summed over a completion it is the reward minus beta times the estimate of KL(pi || pi_soup). No gradient passes.

    Args:
      rewards: of the whole completions.
      policy_token_logps: log-probs of the sampled tokens under the policy. Held fixed.
      reference_token_logps: the same under the soup (`model_soup`). Held fixed.
      mask: bool, True on completion tokens; what stands elsewhere is not looked at.
      beta: in [0, inf).

    Shapes: rewards `[...]`, log-probs and mask `[..., T]`; result float32 `[..., T]`, zero behind the mask.

    Raises:
      AssertionError: shapes do not agree, rewards or log-probs not floating, mask not bool.
      ValueError: static beta out of range.

    Paper: Chegini et al., 2024, arXiv 2411.01798. The paper says of beta only that it can be smaller than against the
    supervised model; 0.1 is a choice made here.
    """
    (rewards,) = checks.floats(rewards=rewards)
    policy, reference = checks.floats(
        policy_token_logps=policy_token_logps, reference_token_logps=reference_token_logps
    )
    checks.leading_shape(rewards=rewards, policy_token_logps=policy)
    checks.number("beta", beta, 0.0, closed="left")
    penalty = beta * (keep(policy, mask) - keep(reference, mask))
    # The mask may have holes; the last token is the last True.
    after = jnp.cumsum(mask[..., ::-1], axis=-1)[..., ::-1]
    last = mask & (after == 1)
    return jax.lax.stop_gradient(jnp.where(last, rewards[..., None], 0.0) - penalty)


def tr_dpo_soft_update(reference_params: Any, params: Any, *, alpha: float = 0.6) -> Any:
    """alpha theta + (1 - alpha) theta_ref, leaf by leaf: the reference moves towards the policy.

    alpha = 0 leaves the reference frozen; alpha = 1 is the hard update, after which policy and reference agree and the
    loss of DPO is log 2. Log-probs stored from an earlier reference are stale after it.

    Args:
      reference_params, params: of the reference and of the policy, of the same structure and shapes.
      alpha: share of the policy, in [0, 1].

    Raises:
      ValueError: static alpha out of range, or the structures differ.
      AssertionError: shapes of a leaf differ.

    Paper: Gorbatovski et al., 2024, arXiv 2404.09656. alpha 0.6 every 512 steps is TRL's default (`sync_ref_model`).
    """
    return model_soup(reference_params, params, alpha=alpha)


def apo_momentum(params: Any, previous: Any, *, alpha: float = 0.3) -> Any:
    """theta + alpha (theta - theta_previous), leaf by leaf: accelerated preference optimization, in parameters.

    Both are solutions of a round of preference optimization whose reference is the policy that it began with; what
    comes out is the policy (and reference) that the next round begins with. Not to be given what came out of the round
    before in place of its solution. alpha = 0 is iterative DPO. With exact rounds it is asymptotically 1 / (1 - alpha)
    times as fast.

    Args:
      params: the solution of this round.
      previous: the solution of the round before; at first, where the run began.
      alpha: in [0, 1).

    Raises:
      ValueError: static alpha out of range, or the structures differ.
      AssertionError: shapes of a leaf differ.

    Paper: He et al., 2024, arXiv 2410.06293. No official code; 0.3 is not confirmed.
    """
    checks.number("alpha", alpha, 0.0, 1.0, closed="left")

    def go_on(new: Array, old: Array) -> Array:
        checks.same_shape(params=new, previous=old)
        return (new + alpha * (new - old)).astype(jnp.asarray(new).dtype)

    return jax.tree.map(go_on, params, previous)


def apo_momentum_logps(logps: Array, previous_logps: Array, *, alpha: float = 0.3) -> Array:
    """log of pi ~ pi_hat (pi_hat / pi_hat_previous)^alpha: the same in the space of policies, which is the theory's.

    For logits that are the parameters (a table) it is `apo_momentum`; of a language model taken token by token.

    Args:
      logps: log-probs (or logits) of this round's solution.
      previous_logps: the same of the round before.
      alpha: in [0, 1).

    Shapes: both `[..., V]`; result float32 `[..., V]`, normalised over the last axis.

    Raises:
      AssertionError: shapes differ or log-probs are not floating.
      ValueError: static alpha out of range.

    Paper: He et al., 2024, arXiv 2410.06293.
    """
    checks.number("alpha", alpha, 0.0, 1.0, closed="left")
    new, old = checks.floats(logps=logps, previous_logps=previous_logps)
    return jax.nn.log_softmax(new + alpha * (new - old), axis=-1)


def auxiliary(state: Any) -> Any:
    """Parameters that begin again from the state's reference; what that has none of (a value model) stays.

    The auxiliary policy of optimistic self-play is the reference (`alignment.losses.onpo`): an iteration solves for it
    and then for the policy that plays, both times from where it stands.
    """
    return {**state.params, **jax.tree.map(jnp.copy, state.reference)}
