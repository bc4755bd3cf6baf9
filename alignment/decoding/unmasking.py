"""Sampling from a masked diffusion model: all of a response is hidden at first, and a few tokens are shown every step.

The model predicts every hidden token at once, each on its own given what is shown. Tokens that are shown in one step
are therefore drawn independently; with as many steps as tokens, each is drawn given all those before it. In which order
they are shown is the choice of a `fill_*` function: by chance, as the training objective has it (the likelihood bound
of `policy_gradients.mdlm_elbo_exact` is the mean over those orders), or where the model is surest first.

The last token of the model's vocabulary is [MASK]: it stands for what is hidden and is never drawn.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from alignment.models.decoder import Model, Params, grow_cache, init_cache
from alignment.segments import BRANCHES

Array = jax.Array
LogitsOf = Callable[[Array], Array]  # tokens [B, L], [MASK] where hidden -> logits [B, L, V] without [MASK]


def _shown_by(step: Array, steps: int, hidden_at_first: Array) -> Array:
    """How many of the tokens hidden at first are shown after so many steps: in equal shares, all of them at the end."""
    return -((-hidden_at_first * step) // steps)


def _draw(rng: Array, logits: Array, temperature: float | Array | None) -> Array:
    """A token at every place; temperature None takes the likeliest."""
    if temperature is None:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return jax.random.categorical(rng, logits / temperature).astype(jnp.int32)


def fill_in_random_order(
    logits_of: LogitsOf, tokens: Array, hidden: Array, mask_id: int, rng: Array, *, steps: int, temperature=1.0
) -> Array:
    """Shows the hidden tokens in an order drawn uniformly for each row, an equal share of them in each step.

    With `steps` at least the number of hidden tokens a sequence y has the probability of ancestral sampling: the mean
    over all orders of the product of p(y_i | what is shown before it). Fewer steps draw several tokens independently.

    Args:
      logits_of: tokens [B, L] with [MASK] where hidden to logits [B, L, V]; called once a step.
      tokens: i32 [B, L]; what is not hidden is kept.
      hidden: bool [B, L], what to fill.
      mask_id: the number of [MASK].
      rng: key of the order and of the tokens.
      steps: >= 1, a Python number.
      temperature: divides the logits; None takes the likeliest token at each place.

    Returns:
      i32 [B, L], nothing hidden any more.
    """
    order_rng, token_rng = jax.random.split(rng)
    places = jnp.where(hidden, jax.random.uniform(order_rng, hidden.shape), 2.0)
    rank = jnp.argsort(jnp.argsort(places, axis=-1), axis=-1)
    count = jnp.sum(hidden, axis=-1, keepdims=True)

    def show(tokens, step):
        now = hidden & (rank >= _shown_by(step - 1, steps, count)) & (rank < _shown_by(step, steps, count))
        drawn = _draw(jax.random.fold_in(token_rng, step), logits_of(tokens), temperature)
        return jnp.where(now, drawn, tokens), None

    return jax.lax.scan(show, jnp.where(hidden, mask_id, tokens), jnp.arange(steps) + 1)[0]


def fill_by_confidence(
    logits_of: LogitsOf, tokens: Array, hidden: Array, mask_id: int, rng: Array, *, steps: int, temperature=1.0
) -> Array:
    """Draws all hidden tokens in each step and shows those that the model gives the highest probability.

    At equal confidence the earlier place goes first. Where everything is certain this finds better sequences than a
    random order, and it is what masked diffusion models are usually decoded with; its samples do not follow the
    model's distribution. With temperature None nothing is random.

    Arguments and result as of `fill_in_random_order`. Nie et al., 2025 (LLaDA), arXiv 2502.09992, "low-confidence
    remasking"; the confidence is that of the distribution before the temperature, as there.
    """
    count = jnp.sum(hidden, axis=-1, keepdims=True)

    def show(tokens, step):
        still = hidden & (tokens == mask_id)
        logits = logits_of(tokens)
        drawn = _draw(jax.random.fold_in(rng, step), logits, temperature)
        logps = jnp.take_along_axis(jax.nn.log_softmax(logits), drawn[..., None], axis=-1)[..., 0]
        rank = jnp.argsort(jnp.argsort(jnp.where(still, -logps, jnp.inf), axis=-1), axis=-1)
        more = _shown_by(step, steps, count) - (count - jnp.sum(still, axis=-1, keepdims=True))
        return jnp.where(still & (rank < more), drawn, tokens), None

    return jax.lax.scan(show, jnp.where(hidden, mask_id, tokens), jnp.arange(steps) + 1)[0]


ORDERS = {"random": fill_in_random_order, "confidence": fill_by_confidence}


@functools.partial(jax.jit, static_argnames=("model", "group_size", "steps", "order"))
def _sample(model, params, prompts, prompt_mask, given, hidden, rng, temperature, *, group_size, steps, order):
    width, length, mask_id = prompts.shape[1], hidden.shape[1], model.config.vocab_size - 1
    positions = jnp.maximum(jnp.cumsum(prompt_mask, axis=-1, dtype=jnp.int32) - 1, 0)
    segments = jnp.where(prompt_mask, BRANCHES, 0).astype(jnp.int32)
    # A prompt does not look at its responses, so one pass of it serves all steps and the whole group.
    _, cache = model.hidden(params, prompts, positions, segments, init_cache(model.config, len(prompts), width))
    cache = grow_cache(cache, length)
    cache = jax.tree.map(lambda a: jnp.repeat(a, group_size, axis=0) if a.ndim else a, cache)
    starts = jnp.repeat(jnp.sum(prompt_mask, axis=-1, dtype=jnp.int32), group_size)
    at = starts[:, None] + jnp.arange(length)
    branch = jnp.full(hidden.shape, BRANCHES + 1, jnp.int32)

    def logits_of(tokens):
        h, _ = model.hidden(params, tokens, at, branch, cache)  # the cache returned is dropped: it holds this guess
        return model.unembed(params, h)[..., :mask_id]

    return ORDERS[order](logits_of, given, hidden, mask_id, rng, steps=steps, temperature=temperature)


def sample(
    model: Model,
    params: Params,
    prompts: Array,
    prompt_mask: Array,
    rng: Array,
    *,
    length: int,
    steps: int,
    group_size: int = 1,
    temperature: float = 1.0,
    order: str = "random",
    given: Array | None = None,
    given_mask: Array | None = None,
) -> Array:
    """Fills `group_size` responses of `length` tokens for each prompt; compiled once per shape, order and steps.

    Args:
      model: a bidirectional model whose last token is [MASK] (keep one: a rebuilt model compiles anew).
      prompts: i32 [B, P], left-padded.
      prompt_mask: bool [B, P], True on real tokens.
      rng: key.
      steps: how often the model is asked, at most `length` of use.
      temperature: divides the logits; 0 takes the likeliest token at each place.
      order: "random" or "confidence": see the `fill_*` functions.
      given, given_mask: i32 and bool [B * group_size, length]: tokens that stand at their places from the start and
        stay (in-painting); None gives nothing.

    Returns:
      i32 [B * group_size, length]; row i * group_size + j is the j-th of prompt i. Where a response ends is for the
      caller to say: everything after its first end token is filler.

    Raises:
      ValueError: a setting out of its range, or a model or shapes that do not fit.
    """
    prompts, prompt_mask = np.asarray(prompts, np.int32), np.asarray(prompt_mask, bool)
    rows = len(prompts) * group_size
    if model.config.causal:
        raise ValueError("unmasking needs a bidirectional model: build it with causal=False")
    if prompts.ndim != 2 or prompts.shape != prompt_mask.shape or not prompt_mask[:, -1].all():
        raise ValueError(
            f"prompts and prompt_mask must be left-padded [B, P], got {prompts.shape}, {prompt_mask.shape}"
        )
    for name, value in (("length", length), ("steps", steps), ("group_size", group_size)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    if prompts.shape[1] + length > model.config.max_position_embeddings:
        raise ValueError(
            f"prompts of {prompts.shape[1]} columns and length={length} exceed the model's context of "
            f"{model.config.max_position_embeddings} (max_position_embeddings)"
        )
    if not temperature >= 0:
        raise ValueError(f"temperature must be >= 0, got {temperature}")
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
    if (given is None) != (given_mask is None):
        raise ValueError("given and given_mask belong together")
    if given is None:
        given, given_mask = np.zeros((rows, length), np.int32), np.zeros((rows, length), bool)
    if given.shape != (rows, length) or given_mask.shape != (rows, length):
        raise ValueError(
            f"given and given_mask must have shape {(rows, length)}, got {given.shape}, {given_mask.shape}"
        )
    return _sample(
        model,
        params,
        prompts,
        prompt_mask,
        jnp.asarray(given, jnp.int32),
        ~jnp.asarray(given_mask, bool),
        rng,
        jnp.float32(temperature) if temperature else None,
        group_size=int(group_size),
        steps=int(steps),
        order=order,
    )
