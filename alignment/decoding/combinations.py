"""What the next-token logits of several models become: pure functions, `[..., V]` of each to the `[..., V]` drawn from.

Results are logits: the sampler normalises them, after its own temperature and truncation. -inf is a token that is never
drawn, and what the first model never draws no guide brings back. All arithmetic is float32. `guided.sample` runs them:

    def combine(logits, *, scale):
        return combinations.rlg(logits["base"], logits["tuned"], scale=scale)

Several of them are one line of algebra. With z the logits of base b and tuned t: `rlg` (1-w) z_b + w z_t, `uld`
z_b - a z_t, `contrastive` without its mask z_b - c z_t, `genarm` z_b + sum_i a_i z_i.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from alignment import checks

Array = jax.Array


def _logits(**arrays: Array) -> list[Array]:
    """The arrays as float32; ValueError that names the models if their vocabularies differ."""
    sizes = {name: jnp.shape(a)[-1:] for name, a in arrays.items()}
    if len(set(sizes.values())) > 1 or () in sizes.values():
        shown = ", ".join(f"{name} {size[0] if size else 'no axis'}" for name, size in sizes.items())
        raise ValueError(f"models that decode together must share one vocabulary, got {shown}")
    return checks.floats(**arrays)


def _where_possible(logits: Array, combined: Array) -> Array:
    """`combined` where the first model can draw the token; -inf elsewhere, whatever 0 * inf has made of it."""
    return jnp.where(logits > -jnp.inf, combined, -jnp.inf)


def genarm(base_logits: Array, arm_logits: Array, *, alphas: Sequence[float] | Array) -> Array:
    """Next-token logits guided by autoregressive reward models: log p_base + sum_i alpha_i log p_i.

    alpha = 1/beta of one reward; of several, alpha_i = w_i / beta, chosen anew for every call. A guide smaller than the
    base makes weak-to-strong guidance. The product is normalised token by token: it is the KL-regularised optimum for
    guides whose log-probs are beta * (log q - log p_base) up to a constant, q being the optimum's next-token
    distribution, and for no others.

    Args:
      base_logits: `[..., V]`.
      arm_logits: `[..., K, V]`, one autoregressive reward model after the other.
      alphas: K numbers, or an array `[K]` or `[..., K]` (weights that differ between rows). At least 0 (paper: 0 to 4).

    Returns:
      float32 `[..., V]`.

    Raises:
      ValueError: vocabularies differ, not one alpha for each guide, or one below 0.
      AssertionError: shapes differ otherwise, or logits not floating.

    Paper: Xu et al., 2024, arXiv 2410.08193, eq. 7 and 9. The published scripts run a library that divides by the sum
      of all weights and undo it by a temperature of 1 / (1 + alpha); this is the formula of the paper.
    """
    guides = jnp.shape(arm_logits)[-2] if jnp.ndim(arm_logits) > 1 else 0
    base, _ = _logits(base_logits=base_logits, arm_logits=arm_logits[..., 0, :] if guides else arm_logits)
    if not isinstance(alphas, jax.Array):
        alphas = checks.constants("alphas", alphas, guides, 0.0)
    if alphas.shape[-1:] != (guides,):
        raise ValueError(f"alphas must have one number for each of the {guides} guides, got shape {alphas.shape}")
    logps = jax.nn.log_softmax(jnp.asarray(arm_logits, base.dtype), axis=-1)
    weights = alphas[..., None].astype(base.dtype)
    pull = jnp.sum(jnp.where(weights == 0, 0.0, weights * logps), axis=-2)
    return _where_possible(base, jax.nn.log_softmax(base, axis=-1) + pull)


def rlg(base_logits: Array, tuned_logits: Array, *, scale: float = 2.0) -> Array:
    """(1 - w) z_base + w z_tuned: between a model and its tuned version, or beyond it.

    w = 0 is the base, 1 the tuned model, 2 adds the difference once more. If the tuned model is p_base exp(r / beta),
    the result for one-token responses is p_base exp(w r / beta): the KL coefficient beta / w without training again.
    For longer ones it is the product of the tokens' mixtures, which is another distribution.

    Args:
      base_logits, tuned_logits: `[..., V]`.
      scale: w, any number; the paper recommends 1 to 3. Large ones amplify the noise of unlikely tokens.

    Returns:
      float32 `[..., V]`.

    Raises:
      ValueError: vocabularies differ. AssertionError: shapes differ otherwise, or logits not floating.

    Paper: Jin et al., 2025, arXiv 2508.21016 (of diffusion scores); of language models the same formula is
      decoding-time realignment, Liu et al., 2024, arXiv 2402.02992.
    """
    base, tuned = _logits(base_logits=base_logits, tuned_logits=tuned_logits)
    return _where_possible(base, base + jnp.where(scale == 0, 0.0, scale * (tuned - base)))


def contrastive(
    expert_logits: Array,
    amateur_logits: Array,
    *,
    alpha: float = 0.1,
    strength: float = 1.0,
    amateur_temperature: float = 1.0,
) -> Array:
    """log p_expert - c log p_amateur on the tokens at least alpha times as likely as the expert's likeliest.

    Greedy or sampled; of a beam the scores add up. At alpha = 1 only the likeliest token is left, and exact ties.

    Args:
      expert_logits, amateur_logits: `[..., V]`.
      alpha: in [0, 1]; 0 keeps everything, and the algebra is that of `uld` on log-probs.
      strength: c, at least 0.
      amateur_temperature: above 0, divides the amateur's logits (paper: 0.5 for GPT-2, 1 for OPT).

    Returns:
      float32 `[..., V]`, -inf outside the plausible tokens.

    Raises:
      ValueError: vocabularies differ, or a number out of range. AssertionError: shapes differ, logits not floating.

    Paper: Li et al., 2022, arXiv 2210.15097. Its beam search keeps at least two tokens; here one may be left, as in the
      paper's definition.
    """
    checks.number("alpha", alpha, 0.0, 1.0, closed="both")
    checks.number("strength", strength, 0.0, closed="left")
    checks.number("amateur_temperature", amateur_temperature, 0.0)
    expert, amateur = _logits(expert_logits=expert_logits, amateur_logits=amateur_logits)
    logps = jax.nn.log_softmax(expert, axis=-1)
    plausible = logps >= jnp.max(logps, axis=-1, keepdims=True) + jnp.log(alpha)
    against = jax.nn.log_softmax(amateur / amateur_temperature, axis=-1)
    scores = logps - jnp.where(strength == 0, 0.0, strength * against)
    return _where_possible(expert, jnp.where(plausible, scores, -jnp.inf))


def uld(target_logits: Array, assistant_logits: Array, *, alpha: float = 0.8) -> Array:
    """z_target - alpha z_assistant: the target without what an assistant was trained to remember.

    The assistant has learnt the documents to forget and is uniform on those to retain, where its constant logits change
    nothing. alpha = 1 with the target itself as assistant is uniform.

    Args:
      target_logits, assistant_logits: `[..., V]`.
      alpha: at least 0 (published scripts: 0.8 for TOFU, 0.5 for copyrighted text).

    Returns:
      float32 `[..., V]`.

    Raises:
      ValueError: vocabularies differ, or alpha below 0. AssertionError: shapes differ otherwise, logits not floating.

    Paper: Ji et al., 2024, arXiv 2406.08607, eq. 3; `uld_filtered` is what the published code runs.
    """
    checks.number("alpha", alpha, 0.0, closed="left")
    target, assistant = _logits(target_logits=target_logits, assistant_logits=assistant_logits)
    return _where_possible(target, target - jnp.where(alpha == 0, 0.0, alpha * assistant))


def uld_filtered(target_logits: Array, assistant_logits: Array, *, alpha: float = 0.8, eps: float = 0.01) -> Array:
    """`uld` on the target's plausible tokens; of the others the assistant's logit counts as 0.

        plausible: log p_target(v) >= min(max_u log p_target(u) + log eps, the k-th largest), k = int(eps V)

    The 0 is on the scale of raw logits, so a constant added to the assistant's logits changes the result here, and
    unlikely tokens gain or lose against the plausible ones by where that scale lies.

    Args:
      target_logits, assistant_logits: `[..., V]`.
      alpha: at least 0.
      eps: in (0, 1); published scripts 0.01, their config 0.1.

    Returns:
      float32 `[..., V]`.

    Raises:
      ValueError: vocabularies differ, or a number out of range. AssertionError: shapes differ, logits not floating.

    Paper: Ji et al., 2024, arXiv 2406.08607, and UCSB-NLP-Chang/ULD `contrastllm.py`. There k = 0 (a vocabulary below
      1 / eps) reads the smallest log-prob and keeps everything; here k is at least 1.
    """
    checks.number("eps", eps, 0.0, 1.0)
    target, assistant = _logits(target_logits=target_logits, assistant_logits=assistant_logits)
    logps = jax.nn.log_softmax(target, axis=-1)
    count = max(1, int(eps * logps.shape[-1]))
    threshold = jnp.minimum(
        jnp.max(logps, axis=-1, keepdims=True) + jnp.log(eps), jax.lax.top_k(logps, count)[0][..., -1:]
    )
    return uld(target, jnp.where(logps >= threshold, assistant, 0.0), alpha=alpha)


def uld_uniform_term(assistant_logits: Array) -> Array:
    """KL(U || p) of the assistant's next token, U uniform: -log V - (1/V) sum_v log p(v).

    What ULD adds, five times, on the documents to retain to the negative log-likelihood of those to forget; the
    gradient with respect to the logits is p - 1/V. The paper writes it as a cross-entropy, log V more.

    Args:
      assistant_logits: `[..., V]`. Trained.

    Returns:
      float32 `[...]`, in nats, at least 0.

    Paper: Ji et al., 2024, arXiv 2406.08607, eq. 5. The published code averages it over
      prompt and padding too; mask it.
    """
    (logits,) = _logits(assistant_logits=assistant_logits)
    return jax.nn.logsumexp(logits, axis=-1) - jnp.mean(logits, axis=-1) - jnp.log(logits.shape[-1])


def controlled(logits: Array, values: Array, *, strength: float = 1.0) -> Array:
    """log p(v|s) + lambda V(s + v): next-token probabilities tilted by the value of where each token leads.

    With one-token responses, V the reward and lambda = 1/beta it is the KL-regularised optimum. For longer ones that
    optimum asks for V = log E[exp(r / beta)] of what follows; the mean E[r], which regression finds, gives another.

    Args:
      logits: `[..., V]`.
      values: `[..., V]`, of the prefix with each token; not looked at where the model cannot draw the token.
      strength: lambda, at least 0.

    Returns:
      float32 `[..., V]`.

    Raises:
      ValueError: vocabularies differ, or strength below 0. AssertionError: shapes differ otherwise, or a wrong dtype.

    Paper: Mudgal et al., 2023, arXiv 2310.17022, eq. 6.
    """
    checks.number("strength", strength, 0.0, closed="left")
    logits, values = _logits(logits=logits, values=values)
    tilt = jnp.where(strength == 0, 0.0, strength * values)
    return _where_possible(logits, jax.nn.log_softmax(logits, axis=-1) + tilt)


def args(logits: Array, candidates: Array, rewards: Array, *, weight: float = 1.0) -> Array:
    """log p(v|s) + w r(s + v) for candidate tokens, -inf for all others: a reward model reranks the likeliest few.

    Args:
      logits: `[..., V]`.
      candidates: int32 `[..., k]`, different tokens, usually the k likeliest (`candidates` of this module).
      rewards: `[..., k]`, of the prefix with each candidate. The reward models in use were trained on whole responses.
      weight: w, at least 0 (paper: 1 to 1.5).

    Returns:
      float32 `[..., V]`.

    Raises:
      ValueError: weight below 0. AssertionError: shapes differ, or a wrong dtype.

    Paper: Khanov et al., 2024, arXiv 2402.01694, eq. 2. The published code adds the reward to raw logits, which changes
      neither the maximum nor, after its softmax, the sample.
    """
    checks.number("weight", weight, 0.0, closed="left")
    checks.integers(candidates=candidates)
    checks.same_shape(candidates=candidates, rewards=rewards)
    logps = jax.nn.log_softmax(*checks.floats(logits=logits), axis=-1)
    (rewards,) = checks.floats(rewards=rewards)
    chosen = jnp.take_along_axis(logps, candidates, axis=-1)
    scores = _where_possible(chosen, chosen + jnp.where(weight == 0, 0.0, weight * rewards))
    nothing = jnp.full_like(logps, -jnp.inf)
    return jnp.put_along_axis(nothing, candidates, scores, axis=-1, inplace=False)


def candidates(logits: Array, count: int) -> Array:
    """The `count` likeliest tokens, likeliest first, ties in the order of the vocabulary: `[..., V]` to i32 `[..., k]`.

    Raises:
      ValueError: count not between 1 and V.
    """
    if not 1 <= count <= logits.shape[-1]:
        raise ValueError(f"candidates must be between 1 and the vocabulary's {logits.shape[-1]}, got {count}")
    return jax.lax.top_k(logits, count)[1].astype(jnp.int32)


def grounded(logits: Array, grounding: Array) -> Array:
    """log p(v|s) + sum_g log p_g(s, v): a language model and scores of what can be done, wanted or allowed here.

    A score of 0 forbids the token; scores in {0, 1} make constrained decoding, renormalised. They need not sum to one
    over the tokens. If every token of a row is forbidden all of it is -inf: nothing can be drawn there, and a sampler's
    log-prob of whatever it returns is not finite.

    Args:
      logits: `[..., V]`.
      grounding: `[..., K, V]`, K functions in [0, 1] of the prefix with each token.

    Returns:
      float32 `[..., V]`; of a sequence the scores log p + sum_g log p_g add up (greedy, beam).

    Raises:
      ValueError: vocabularies differ. AssertionError: shapes differ otherwise, or a wrong dtype.

    Paper: Huang et al., 2023, arXiv 2303.00855, eq. 1 and algorithm 1.
    """
    if jnp.ndim(grounding) != jnp.ndim(logits) + 1:
        raise AssertionError(f"grounding must have shape [..., K, V] for logits [..., V], got {jnp.shape(grounding)}")
    logits, _ = _logits(logits=logits, grounding=grounding[..., 0, :])
    # log of a negative number would be NaN; a score is clipped from above as well, where rounding leaves it over 1.
    scores = jnp.sum(jnp.log(jnp.clip(jnp.asarray(grounding, jnp.float32), 0.0, 1.0)), axis=-2)
    return _where_possible(logits, jax.nn.log_softmax(logits, axis=-1) + scores)


def cd_q_targets(base_logps: Array, next_values: Array, rewards: Array, ended: Array) -> Array:
    """What a prefix value is fitted to by CD-Q: the reward at the end, the mean of the next values before it.

        v_t = r if y_t ends the response, else sum_z p_base(z | y_1:t) V(y_1:t + z)

    The loss is (V - v)^2 / 2, as of `alignment.losses.cd_fudge`, whose target is the reward itself. The values
    E_base[r | y_1:t] are its fixed point.

    Args:
      base_logps: `[..., V]`, log-probs of the next token under the frozen base.
      next_values: `[..., V]`, of the prefix with each next token. Held fixed.
      rewards: `[...]`, of the response. ended: bool `[...]`, whether the prefix is a whole response.

    Returns:
      float32 `[...]`, no gradient.

    Raises:
      AssertionError: shapes differ, or a wrong dtype.

    Paper: Mudgal et al., 2023, arXiv 2310.17022, eq. 4 and 5.
    """
    logps, values = checks.floats(base_logps=base_logps, next_values=next_values)
    checks.boolean(ended=ended)
    checks.same_shape(rewards=rewards, ended=ended)
    checks.leading_shape(rewards=rewards, base_logps=base_logps)
    (rewards,) = checks.floats(rewards=rewards)
    expected = jnp.sum(jnp.where(logps > -jnp.inf, jnp.exp(logps) * values, 0.0), axis=-1)
    return jax.lax.stop_gradient(jnp.where(ended, rewards, expected))
