"""Listwise reranking by one token: a window of candidates is ordered by the logits of their identifiers (FIRST).

`rerank` is plain Python around a function that the caller passes; `identifier_logits` is what such a function asks of a
language model: one forward pass of the prompt, from which nothing is decoded.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks
from alignment.models.decoder import Model, Params
from alignment.segments import BRANCHES

Array = jax.Array
Score = Callable[[Any, Sequence[Any]], Any]  # (prompt, the candidates of a window in their order) -> a score of each


def count_windows(candidates: int, *, window: int = 20, stride: int = 10) -> int:
    """How often `rerank` calls its scorer for so many candidates: ceil(max(candidates - window, 0) / stride) + 1."""
    checks.positive_integer("candidates", candidates)
    checks.positive_integer("window", window)
    if isinstance(stride, bool) or not isinstance(stride, int) or not 1 <= stride <= window:
        raise ValueError(f"stride must be an integer in [1, window], window {window}, got {stride!r}")
    return math.ceil(max(candidates - window, 0) / stride) + 1


def rerank(score: Score, prompt: Any, candidates: Sequence[Any], *, window: int = 20, stride: int = 10) -> list[int]:
    """The candidates' numbers, best first: windows from the list's end to its beginning, each sorted by its scores.

        window i = [max(n - i stride - window, 0), n - i stride),  i = 0, 1, ...  up to the first that begins at 0

    A list of up to `window` candidates is one plain sort. In a longer one the best of a window take part in the next:
    by scores that say the same of a candidate in every window, the first window - stride places are right, wherever
    their candidates stood; with stride = window nothing passes from one window to the next. Equal scores keep the order
    that they stand in.

    Args:
      score: (prompt, candidates of a window, in their present order) to one score each, higher is better.
      candidates: at least one, in a first order (a retriever's), which is not changed.
      window, stride: 1 <= stride <= window; 20 and 10 in the paper.

    Returns:
      A permutation of 0 .. n - 1, as Python integers.

    Raises:
      ValueError: no candidates, a stride outside [1, window], scores of a wrong shape or not finite.

    Paper: Reddy et al., 2024, arXiv 2406.15657; the windows of Sun et al., 2023, arXiv 2304.09542. Where their codes
      differ, castorini/rank_llm is followed, which Chen et al., 2024, arXiv 2411.05508, use: its last window is cut at
      the beginning of the list, where RankGPT's leaves out what is left of n - window beyond a multiple of stride (and
      all of a list shorter than a window).
    """
    count = count_windows(len(candidates), window=window, stride=stride)
    order = list(range(len(candidates)))
    for end in range(len(order), len(order) - count * stride, -stride):
        part = order[max(end - window, 0) : end]
        scores = np.asarray(score(prompt, [candidates[i] for i in part]), np.float64)
        if scores.shape != (len(part),) or not np.isfinite(scores).all():
            raise ValueError(f"score must give {len(part)} finite numbers, one for each candidate, got {scores}")
        order[end - len(part) : end] = [part[i] for i in np.argsort(-scores, kind="stable")]
    return order


@functools.partial(jax.jit, static_argnames="model")
def identifier_logits(model: Model, params: Params, prompts: Array, prompt_mask: Array, identifiers: Array) -> Array:
    """s_i, the logit of identifier token i at the place after the prompt: one prefill, nothing is decoded.

    Only differences count, in which logits and the log-probs that `losses.first_ranknet` trains agree.

    Args:
      prompts: i32 [B, P], padded on the left (`training.rollouts.pad_prompts`). prompt_mask: bool [B, P].
      identifiers: i32 [K], one token for each candidate of a window, in the order of the window.

    Returns:
      f32 [B, K].

    Paper: Reddy et al., 2024, arXiv 2406.15657.
    """
    positions = jnp.maximum(jnp.cumsum(prompt_mask, axis=-1, dtype=jnp.int32) - 1, 0)
    h, _ = model.hidden(params, prompts, positions, jnp.where(prompt_mask, BRANCHES, 0).astype(jnp.int32))
    return model.unembed(params, h[:, -1])[:, identifiers].astype(jnp.float32)
