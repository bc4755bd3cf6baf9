"""In which order training examples come, where it is not one permutation after another.

An order is a function from the place in the endless stream of rows to the number of a row. It depends on nothing else,
so that a stream resumes at any step and is the same for any number of processes.
"""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from alignment import checks

Order = Callable[[int], int]

# How far a curriculum has come, from u, the share of its time that is over; each rises from 0 to 1.
PACINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda u: u,
    "quad": lambda u: u**2,
    "root": math.sqrt,
    "exp": lambda u: (math.exp(10 * u) - 1) / (math.exp(10) - 1),
    "log": lambda u: 1 + math.log(u + math.exp(-10)) / 10,
    "step": lambda u: float(u >= 1),
}


def climb_pacing(
    progress: float,
    *,
    pacing: str = "linear",
    start: float = 0.0625,
    end: float = 0.875,
    lowest: float = 0.1,
    highest: float = 1.0,
) -> float:
    """The share c of the data or of the vocabulary that is open at `progress` of the training.

    `lowest` before `start`, `highest` from `end` on, and between them lowest + (highest - lowest) * pace(u) with
    u = (progress - start) / (end - start), at most `highest`.

    Raises:
      ValueError: an unknown pacing, or not 0 <= start < end <= 1 and 0 < lowest <= highest <= 1.

    Paper: Diehl Martinez et al., 2023, arXiv 2311.08886; the authors' `pacing_fn.py` agrees.
    """
    if pacing not in PACINGS:
        raise ValueError(f"{pacing=} is not one of {', '.join(PACINGS)}")
    if not 0 <= start < end <= 1 or not 0 < lowest <= highest <= 1:
        raise ValueError(
            f"must be 0 <= start < end <= 1 and 0 < lowest <= highest <= 1, got {start=}, {end=}, {lowest=}, {highest=}"
        )
    if progress < start:
        return lowest
    if progress >= end:
        return highest
    return min(highest, lowest + (highest - lowest) * PACINGS[pacing]((progress - start) / (end - start)))


def climb_order(difficulties: Sequence[float], seed: int, *, rows_in_all: int, **pace: float | str) -> Order:
    """CLIMB's data curriculum: each row is drawn evenly from the easiest share c of the examples.

    Args:
      difficulties: of every example, e.g. `unigram_surprises`.
      rows_in_all: rows of the whole training, which the pace is relative to.
      pace: hyperparameters of `climb_pacing`.

    Paper: Diehl Martinez et al., 2023, arXiv 2311.08886.
    """
    climb_pacing(0.0, **pace)
    easiest_first = np.argsort(np.asarray(difficulties), kind="stable")

    def order(place: int) -> int:
        share = climb_pacing(min(1.0, place / rows_in_all), **pace)
        pool = max(1, math.ceil(share * len(easiest_first)))
        return int(easiest_first[np.random.default_rng([seed, place, 31]).integers(pool)])

    return order


def unigram_surprises(token_ids: Sequence[np.ndarray]) -> np.ndarray:
    """Mean -log frequency of each text's tokens, in nats: the logarithm of its perplexity under a unigram model.

    Shapes: a list of N vectors of ids; result float64 `[N]`.
    """
    counts = np.bincount(np.concatenate(token_ids))
    logs = np.log(np.maximum(counts, 1) / counts.sum())
    return np.array([-logs[ids].mean() for ids in token_ids])


def frequency_ranks(token_ids: Sequence[np.ndarray], vocabulary: int) -> np.ndarray:
    """Place of every token id in the order of frequency, the most frequent 0; ties by id. int64 `[vocabulary]`."""
    counts = np.bincount(np.concatenate(token_ids), minlength=vocabulary)
    ranks = np.empty(vocabulary, np.int64)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(vocabulary)
    return ranks


def mccl_sizes(*, smallest: float = 0.25, largest: float = 1.0, multiplier: float = 0.5) -> list[float]:
    """One cycle of epoch sizes, as shares of the data: from the smallest up to the largest and down again.

    n <- min(n / multiplier, largest) while it grows, n <- max(n * multiplier, smallest) while it shrinks. Repeated, the
    cycle is the schedule: 0.25, 0.5, 1, 0.5, | 0.25, 0.5, 1, ... With smallest = largest it is [largest].

    Raises:
      ValueError: not 0 < smallest <= largest <= 1, or multiplier not in (0, 1).

    Paper: Kesgin and Amasyali, 2022, arXiv 2202.05531 (cyclical curriculum learning; `get_cycle_sizes` of their code
      agrees), which their modified CCL of 2024, arXiv 2402.09141, builds on.
    """
    if not 0 < smallest <= largest <= 1:
        raise ValueError(f"must be 0 < smallest <= largest <= 1, got {smallest=}, {largest=}")
    checks.number("multiplier", multiplier, 0.0, 1.0)
    sizes = [smallest]
    while sizes[-1] < largest:
        sizes.append(min(sizes[-1] / multiplier, largest))
    while (following := max(sizes[-1] * multiplier, smallest)) > smallest:
        sizes.append(following)
    return sizes


def mccl_probabilities(losses: Sequence[float], *, floor: float = 1e-2) -> np.ndarray:
    """Proportional to 1 / loss: easy examples are likelier to be picked. float64 `[N]`, sums to 1.

    Args:
      losses: of a model that was trained before.
      floor: losses below it count as this much, in (0, inf): what was memorised would be picked alone.
    """
    checks.number("floor", floor, 0.0)
    weights = 1 / np.maximum(np.asarray(losses, np.float64), floor)
    return weights / weights.sum()


def mccl_order(
    losses: Sequence[float],
    seed: int,
    *,
    smallest: float = 0.25,
    largest: float = 1.0,
    multiplier: float = 0.5,
    floor: float = 1e-2,
) -> Order:
    """The cyclical curriculum: epoch k draws ceil(n_k N) examples without replacement by `mccl_probabilities`.

    Args:
      losses: of every example, under a model that was trained before.
      smallest, largest, multiplier: of `mccl_sizes`.

    Paper: as `mccl_sizes`. What the modified form adds, augmented examples that come and go with the size, is not
      in here: its rule could not be verified.
    """
    count = len(losses)
    sizes = [math.ceil(n * count) for n in mccl_sizes(smallest=smallest, largest=largest, multiplier=multiplier)]
    ends, probabilities = np.cumsum(sizes), mccl_probabilities(losses, floor=floor)

    @functools.lru_cache(maxsize=3)  # as `pipeline.training_batches`
    def epoch(number: int) -> np.ndarray:
        rng, size = np.random.default_rng([seed, number, 53]), sizes[number % len(sizes)]
        return rng.choice(count, size=size, replace=False, p=probabilities)

    def order(place: int) -> int:
        cycle, within = divmod(place, int(ends[-1]))
        index = int(np.searchsorted(ends, within, side="right"))
        return int(epoch(cycle * len(sizes) + index)[within - (ends[index] - sizes[index])])

    return order
