"""Best-of-n from one pool of samples, for all n at once and without the noise of drawing again."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from alignment import checks
from alignment.evaluation import arrays
from alignment.rewards import overoptimization


class BestOfNCurve(NamedTuple):
    """Columns `[K]`: n, KL to the start in nats, and the mean over prompts of what the sample chosen by proxy scores
    under the proxy and under gold, the latter with its standard error over prompts."""

    n: np.ndarray
    kl: np.ndarray
    proxy: np.ndarray
    gold: np.ndarray
    gold_standard_error: np.ndarray


def best_of_n_weights(pool: int, count: int) -> np.ndarray:
    """Probability of the sample of rank i (ascending, of `pool`) to be the best of `count` drawn without replacement.

    C(i - 1, n - 1) / C(N, n), by the recurrence w_N = n / N, w_{i-1} = w_i (i - n) / (i - 1), which overflows nowhere.
    Shapes: result `[pool]`; sums to 1. Raises: ValueError unless 1 <= count <= pool.
    """
    checks.positive_integer("pool", pool)
    checks.positive_integer("count", count)
    if count > pool:
        raise ValueError(f"count must lie in [1, {pool}] for a pool of {pool}, got {count}")
    ranks = np.arange(pool, 1, -1)
    factors = np.concatenate([[count / pool], np.maximum(ranks - count, 0) / (ranks - 1)])
    return np.cumprod(factors)[::-1]


def best_of_n_curve(proxy_rewards: np.ndarray, gold_rewards: np.ndarray, *, counts: Sequence[int] = ()) -> BestOfNCurve:
    """The exact mean, over all subsets of n of a prompt's samples, of the scores of the one that the proxy likes best.

        R_n = sum_i C(i - 1, n - 1) / C(N, n) * score_(i),   samples in ascending order of the proxy

    Equal proxies are broken at random: gold is averaged over them. KL(n) = log n - (n - 1) / n is exact where scores
    have no ties, and an upper bound otherwise (Beirami et al., 2024, arXiv 2401.01879).

    Args:
      proxy_rewards, gold_rewards: scores of N samples of the start policy for each of P prompts.
      counts: the n to look at; empty: powers of two up to N, and N.

    Shapes: `[P, N]` each; results `[K]`. The standard error of a single prompt is NaN.

    Raises: ValueError for shapes that differ, scores that are not finite, a count outside [1, N].

    Paper: Gao et al., 2022 (Scaling Laws for Reward Model Overoptimization), arXiv 2210.10760; the estimator is that of
    Nakano et al., 2021 (WebGPT), arXiv 2112.09332.
    """
    proxy, gold = np.asarray(proxy_rewards, np.float64), np.asarray(gold_rewards, np.float64)
    if proxy.ndim != 2 or not proxy.size or proxy.shape != gold.shape:
        raise ValueError(f"proxy_rewards and gold_rewards must be [P, N], got {proxy.shape} and {gold.shape}")
    if not (np.isfinite(proxy).all() and np.isfinite(gold).all()):
        raise ValueError("proxy_rewards and gold_rewards must be finite")
    prompts, pool = proxy.shape
    counts = list(counts) or sorted({2**i for i in range(pool.bit_length()) if 2**i <= pool} | {pool})
    order = np.argsort(proxy, axis=1, kind="stable")
    gold = np.stack([arrays.mean_over_ties(*pair) for pair in zip(proxy, gold, strict=True)])
    proxy, gold = np.take_along_axis(proxy, order, 1), np.take_along_axis(gold, order, 1)
    weights = np.stack([best_of_n_weights(pool, n) for n in counts], axis=1)
    of_prompts = gold @ weights
    errors = of_prompts.std(axis=0, ddof=1) / np.sqrt(prompts) if prompts > 1 else np.full(len(counts), np.nan)
    kls = np.asarray(overoptimization.best_of_n_kl(jnp.asarray(counts, jnp.float32)))
    return BestOfNCurve(np.array(counts), kls, (proxy @ weights).mean(axis=0), of_prompts.mean(axis=0), errors)
