"""Choices made token by token: one-token rollouts, a restricted set of actions, and where a roll-in ends.

`otr` looks at tokens drawn at each position of a demonstration; `otr_exact` is its expectation. NLPO's functions
restrict a policy to the tokens that an older policy finds likely. The masks of RLGF say on which tokens of a completion
the loss acts when its first part came from a roll-in policy and the rest from a roll-out policy. Functions that need
the whole vocabulary take logits `[..., T, V]`: they are for small models, and the oracles of chunked forms.

Nothing here draws: what was drawn (tokens, uniform numbers) comes in as arrays.
"""

import jax
import jax.numpy as jnp

from alignment import checks
from alignment.losses.masking import keep

Array = jax.Array
_stop = jax.lax.stop_gradient
_NEVER = -1e30  # log-prob of a token that may not be taken: finite, so that 0 * log 0 is 0


def otr(
    policy_sampled_token_logps: Array, sampled_tokens: Array, tokens: Array, mask: Array, *, beta: float = -0.1
) -> Array:
    """One-token rollout: -(1 / K) sum over k of R_k * log pi(a_k | s_t), with R_k = 1 if a_k = x_t and beta if not.

    At every position of a demonstration, K tokens a_k are drawn from softmax(logits / kappa), kappa = 1.3 in the paper:
    `jax.random.categorical(key, logits / 1.3, shape=...)`. Log-probs are at temperature 1, and the draw is not
    differentiated. For kappa = 1 the expected gradient is 1 - beta times that of pi(x_t) * -log pi(x_t) with pi(x_t)
    held fixed (dynamic fine-tuning): what the method adds to that is the noise of the draw, of variance 1 / K, and
    kappa. `sequence_mean` is the paper's reduction.

    Args:
      policy_sampled_token_logps: log pi of each drawn token, at temperature 1. Trained.
      sampled_tokens: the K drawn tokens at each position, integers; the paper draws 256.
      tokens: x, the demonstration's own tokens.
      mask: bool, True on completion tokens; nothing is looked at elsewhere.
      beta: reward of a token that is not the demonstration's, in (-inf, inf); small and negative in the paper.

    Shapes: log-probs and drawn tokens `[..., T, K]`, tokens and mask `[..., T]`; result float32 `[..., T]`, in nats.

    Raises:
      AssertionError: shapes do not agree, log-probs not floating, tokens not integer, mask not bool.
      ValueError: static beta out of range.

    Paper: Ming et al., 2025, arXiv 2509.26313. No official code; K = 256, kappa and beta could not be checked against
    the paper's text.
    """
    (logps,) = checks.floats(policy_sampled_token_logps=policy_sampled_token_logps)
    checks.integers(sampled_tokens=sampled_tokens, tokens=tokens)
    checks.boolean(mask=mask)
    checks.same_shape(policy_sampled_token_logps=logps, sampled_tokens=sampled_tokens)
    checks.same_shape(tokens=tokens, mask=mask)
    checks.leading_shape(tokens=tokens, sampled_tokens=sampled_tokens)
    checks.number("beta", beta, -jnp.inf, jnp.inf)
    logps = jnp.where(mask[..., None], logps, 0.0)
    rewards = jnp.where(sampled_tokens == tokens[..., None], 1.0, beta).astype(logps.dtype)
    return -jnp.mean(_stop(rewards) * logps, axis=-1)


def otr_exact(policy_logits: Array, tokens: Array, mask: Array, *, beta: float = -0.1, kappa: float = 1.3) -> Array:
    """The expectation of `otr` over its draw: -(p'(x_t) log pi(x_t) + beta * sum over a != x_t of p'(a) log pi(a)).

    p' = softmax(logits / kappa) is held fixed; log pi is at temperature 1. No draw, hence no noise.

    Args:
      policy_logits: unnormalised log-probs over the vocabulary. Trained.
      tokens: x, the demonstration's tokens, integers.
      mask: bool, True on completion tokens; nothing is looked at elsewhere.
      beta: reward of a token that is not the demonstration's, in (-inf, inf).
      kappa: temperature of the draw, in (0, inf).

    Shapes: logits `[..., T, V]`, tokens and mask `[..., T]`; result float32 `[..., T]`, in nats.

    Raises:
      AssertionError: shapes do not agree, logits not floating, tokens not integer, mask not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Ming et al., 2025, arXiv 2509.26313 (the expectation is not in the paper).
    """
    (logits,) = checks.floats(policy_logits=policy_logits)
    _check_tokens(logits, tokens, mask)
    checks.number("beta", beta, -jnp.inf, jnp.inf)
    checks.number("kappa", kappa, 0.0)
    logits = jnp.where(mask[..., None], logits, 0.0)
    logps, sampler = jax.nn.log_softmax(logits), jax.nn.softmax(_stop(logits) / kappa)
    is_own = jnp.arange(logits.shape[-1]) == jnp.where(mask, tokens, 0)[..., None]
    rewards = jnp.where(is_own, 1.0, beta).astype(logits.dtype)
    return keep(-jnp.sum(_stop(rewards * sampler) * logps, axis=-1), mask)


def _check_tokens(logits: Array, tokens: Array, mask: Array) -> None:
    checks.integers(tokens=tokens)
    checks.boolean(mask=mask)
    checks.same_shape(tokens=tokens, mask=mask)
    checks.leading_shape(mask=mask, policy_logits=logits)


def _check_mask_policy(logits: Array, always_kept: Array) -> Array:
    (logits,) = checks.floats(mask_policy_logits=logits)
    checks.boolean(always_kept=always_kept)
    checks.same_shape(mask_policy_logits=logits, always_kept=always_kept)
    return _stop(logits)


def nlpo_top_p(mask_policy_logits: Array, always_kept: Array, *, p: float = 0.9, min_tokens: int = 100) -> Array:
    """The actions NLPO leaves: the most likely tokens of the mask policy, until their mass is above p.

    The token that crosses p belongs to the set; the set has at least `min_tokens` tokens, and always those of
    `always_kept` (end of text and other special tokens). p = 1 keeps all, p = 0 with one token is the mask policy's
    greedy choice. The mask policy is a copy of the policy refreshed every 5 (IMDB) to 20 (CommonGen) updates; the same
    copy must serve the sampling and both log-probs of a ratio.

    Args:
      mask_policy_logits: unnormalised log-probs under the mask policy. Held fixed.
      always_kept: bool, the special tokens.
      p: in [0, 1].
      min_tokens: at least 1; 100 in the authors' code.

    Shapes: both `[..., V]` (usually the same `always_kept` at every position); result bool `[..., V]`.

    Raises:
      AssertionError: shapes differ, logits not floating, always_kept not bool.
      ValueError: a static hyperparameter out of range.

    Paper: Ramamurthy et al., 2022, arXiv 2210.01241. The authors' causal processor keeps one token fewer than
    `min_tokens`, their sequence-to-sequence one keeps that many, as here.
    """
    logits = _check_mask_policy(mask_policy_logits, always_kept)
    checks.number("p", p, 0.0, 1.0, closed="both")
    checks.positive_integer("min_tokens", min_tokens)
    probabilities = jax.nn.softmax(logits)
    order = jnp.argsort(-probabilities, axis=-1)
    falling = jnp.take_along_axis(probabilities, order, axis=-1)
    before = jnp.cumsum(falling, axis=-1) - falling
    # The sum of all can round to more than 1, so p = 1 is said, not compared.
    wanted = (before <= p) | (jnp.asarray(p) >= 1.0) | (jnp.arange(logits.shape[-1]) < min_tokens)
    return jnp.take_along_axis(wanted, jnp.argsort(order, axis=-1), axis=-1) | always_kept


def nlpo_top_k(mask_policy_logits: Array, always_kept: Array, *, k: int = 100) -> Array:
    """The actions NLPO leaves with a mask of fixed size: the k most likely tokens of the mask policy.

    Args:
      mask_policy_logits: unnormalised log-probs under the mask policy. Held fixed.
      always_kept: bool, the special tokens, kept besides.
      k: at least 1.

    Shapes: both `[..., V]` (usually the same `always_kept` at every position); result bool `[..., V]`.

    Raises:
      AssertionError: shapes differ, logits not floating, always_kept not bool.
      ValueError: k out of range.

    Paper: Ramamurthy et al., 2022, arXiv 2210.01241 (the mask type that their code calls top-k).
    """
    logits = _check_mask_policy(mask_policy_logits, always_kept)
    checks.positive_integer("k", k)
    ranks = jnp.argsort(jnp.argsort(-logits, axis=-1), axis=-1)
    return (ranks < k) | always_kept


def nlpo_logps(policy_logits: Array, action_mask: Array) -> Array:
    """Log-probs of the policy restricted to the actions of a mask and renormalised.

        log pi(a) - log of the sum of pi over the mask,   -1e30 outside

    Sample from these, and take both log-probs of PPO's ratio from them. What is outside has probability 0 and no
    gradient; so do the log-probs of a position whose mask is empty, which mean nothing.

    Args:
      policy_logits: unnormalised log-probs. Trained.
      action_mask: bool, from `nlpo_top_p` or `nlpo_top_k`.

    Shapes: both `[..., V]`; result float32 `[..., V]`, in nats.

    Raises:
      AssertionError: shapes differ, logits not floating, action_mask not bool.

    Paper: Ramamurthy et al., 2022, arXiv 2210.01241. In the authors' masked categorical the masking of the logits is
    commented out, so that their stored log-probs may lack the renormalisation; here it is as in the paper.
    """
    (logits,) = checks.floats(policy_logits=policy_logits)
    checks.boolean(action_mask=action_mask)
    checks.same_shape(policy_logits=logits, action_mask=action_mask)
    inside = jax.nn.log_softmax(jnp.where(action_mask, logits, _NEVER))
    return jnp.where(action_mask, inside, _NEVER)


def nlpo_token_logps(policy_logits: Array, action_mask: Array, tokens: Array, mask: Array) -> Array:
    """Log-prob of each token of a completion under the restricted policy of `nlpo_logps`.

    A token outside its mask, as happens if the mask policy was refreshed after the token was drawn, has log-prob -1e30
    and no gradient: the mask must be the one of the draw.

    Args:
      policy_logits: unnormalised log-probs at every position. Trained.
      action_mask: bool, the actions left at every position.
      tokens: the tokens taken, integers.
      mask: bool, True on completion tokens; nothing is looked at elsewhere.

    Shapes: logits and action_mask `[..., T, V]`, tokens and mask `[..., T]`; result float32 `[..., T]`, 0 behind the
    mask.

    Raises:
      AssertionError: shapes do not agree or dtypes are wrong.

    Paper: Ramamurthy et al., 2022, arXiv 2210.01241.
    """
    (logits,) = checks.floats(policy_logits=policy_logits)
    _check_tokens(logits, tokens, mask)
    logps = nlpo_logps(jnp.where(mask[..., None], logits, 0.0), action_mask)
    taken = jnp.take_along_axis(logps, jnp.where(mask, tokens, 0)[..., None], axis=-1)[..., 0]
    return keep(taken, mask)


def rlgf_roll_in_lengths(coins: Array, uniforms: Array, lengths: Array, *, beta: float = 0.8) -> Array:
    """How many tokens of a roll-in generation to keep before the roll-out policy takes over.

    With probability beta (coin below beta) uniform on 0 .. L - 2, else 0; 0 too for generations shorter than 2.

    Args:
      coins, uniforms: independent uniform numbers in [0, 1).
      lengths: L, tokens in the roll-in generation, integers.
      beta: in [0, 1]; 0.6 to 0.8 for PPO++, 0.8 to 1 for AggreVaTeD.

    Shapes: all `[...]`, usually `[N]`; result int32 `[...]`.

    Raises:
      AssertionError: shapes differ or dtypes are wrong.
      ValueError: static beta out of range.

    Paper: Chang et al., 2023, arXiv 2306.11816. The authors' `RollinProcessor` agrees.
    """
    coins, uniforms = checks.floats(coins=coins, uniforms=uniforms)
    checks.integers(lengths=lengths)
    checks.same_shape(coins=coins, lengths=lengths)
    checks.number("beta", beta, 0.0, 1.0, closed="both")
    choices = jnp.maximum(lengths - 1, 1)
    # A uniform number of half precision can be rounded up to 1.
    drawn = jnp.minimum((uniforms * choices).astype(jnp.int32), choices - 1)
    return jnp.where(coins < beta, drawn, 0).astype(jnp.int32)


def _before(roll_in_lengths: Array, mask: Array) -> Array:
    """True on the completion tokens that belong to the roll-in."""
    checks.integers(roll_in_lengths=roll_in_lengths)
    checks.boolean(mask=mask)
    checks.leading_shape(roll_in_lengths=roll_in_lengths, mask=mask)
    return mask & (jnp.cumsum(mask, axis=-1) <= roll_in_lengths[..., None])


def ppo_plus_plus_mask(roll_in_lengths: Array, mask: Array) -> Array:
    """Tokens PPO++ trains: those after the roll-in, which a guide wrote.

    The guide's states are where the policy restarts from; its tokens must stay out of ratios. With all roll-ins empty
    it is PPO.

    Args:
      roll_in_lengths: tokens of the roll-in that the completion begins with, integers.
      mask: bool, True on the tokens of the whole completion.

    Shapes: lengths `[...]`, mask `[..., T]`; result bool `[..., T]`.

    Raises:
      AssertionError: shapes do not agree or dtypes are wrong.

    Paper: Chang et al., 2023, arXiv 2306.11816.
    """
    return mask & ~_before(roll_in_lengths, mask)


def aggrevated_mask(roll_in_lengths: Array, mask: Array) -> Array:
    """Tokens AggreVaTeD trains: those of the roll-in, which the policy wrote and a guide completed.

    The reward of the completed text makes their advantage that of the guide, and the critic's target its value.

    Args:
      roll_in_lengths: tokens of the roll-in that the completion begins with, integers.
      mask: bool, True on the tokens of the whole completion.

    Shapes: lengths `[...]`, mask `[..., T]`; result bool `[..., T]`.

    Raises:
      AssertionError: shapes do not agree or dtypes are wrong.

    Paper: Chang et al., 2023, arXiv 2306.11816.
    """
    return _before(roll_in_lengths, mask)


def lols_mask(coins: Array, roll_in_lengths: Array, mask: Array, *, tau: float = 0.8) -> Array:
    """Tokens LOLS trains: as PPO++ with probability tau (coin below tau), else as AggreVaTeD.

    The paper tosses once per iteration: give all rows one coin. The same coin says which policy rolls in.

    Args:
      coins: uniform numbers in [0, 1).
      roll_in_lengths: tokens of the roll-in that the completion begins with, integers.
      mask: bool, True on the tokens of the whole completion.
      tau: in [0, 1]; 1 is PPO++, 0 is AggreVaTeD.

    Shapes: coins and lengths `[...]`, mask `[..., T]`; result bool `[..., T]`.

    Raises:
      AssertionError: shapes do not agree or dtypes are wrong.
      ValueError: static tau out of range.

    Paper: Chang et al., 2023, arXiv 2306.11816.
    """
    (coins,) = checks.floats(coins=coins)
    checks.same_shape(coins=coins, roll_in_lengths=roll_in_lengths)
    checks.number("tau", tau, 0.0, 1.0, closed="both")
    rolled_in = _before(roll_in_lengths, mask)
    return jnp.where((coins < tau)[..., None], mask & ~rolled_in, rolled_in)


def d2lols_mask(iterations: Array, roll_in_lengths: Array, mask: Array, *, tau: int = 100) -> Array:
    """Tokens D2LOLS trains: as AggreVaTeD in the first tau iterations, then as PPO++.

    Args:
      iterations: number of the iteration that each row belongs to, from 0, integers.
      roll_in_lengths: tokens of the roll-in that the completion begins with, integers.
      mask: bool, True on the tokens of the whole completion.
      tau: iterations of AggreVaTeD, in [0, inf); 20, 100 or 200 in the paper. 0 is PPO++.

    Shapes: iterations and lengths `[...]`, mask `[..., T]`; result bool `[..., T]`.

    Raises:
      AssertionError: shapes do not agree or dtypes are wrong.
      ValueError: static tau out of range.

    Paper: Chang et al., 2023, arXiv 2306.11816.
    """
    checks.integers(iterations=iterations)
    checks.same_shape(iterations=iterations, roll_in_lengths=roll_in_lengths)
    checks.number("tau", tau, 0.0, closed="left")
    rolled_in = _before(roll_in_lengths, mask)
    return jnp.where((iterations >= tau)[..., None], mask & ~rolled_in, rolled_in)
