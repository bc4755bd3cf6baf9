"""Two halves of a data set by how confident a model was of each example, and rows of one example of each.

The confidence of SFTMix (Xiao et al., 2024, arXiv 2410.05248): minus the mean, over checkpoints of a run, of an
example's perplexity. That run is another than the one that is trained on the halves.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from alignment.data.rows import Tokenized


def confidences(nlls: np.ndarray) -> np.ndarray:
    """-mean_c exp(nll[c, i]): how confident the checkpoints were of each example; at most -1.

    Args:
      nlls: mean negative log-likelihood of each example's completion tokens at each checkpoint, in nats.

    Shapes: nlls `[C, N]`; result float64 `[N]`.

    Raises:
      ValueError: no checkpoint or no example, or a number below 0, which is no mean of a likelihood, or not finite.
    """
    nlls = np.asarray(nlls, np.float64)
    if nlls.ndim != 2 or not nlls.size:
        raise ValueError(f"nlls must have shape [checkpoints, examples] and hold something, got {nlls.shape}")
    if not (np.isfinite(nlls) & (nlls >= 0)).all():
        raise ValueError("nlls must be finite and at least 0")
    return -np.exp(nlls).mean(axis=0)


def confident_and_unconfident(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(indices of the upper half, of the lower half), each in the order of the data; the middle of an odd number is in
    neither. Equal confidences go by their order, the earlier to the upper half.

    Shapes: values `[N]`; both `[N // 2]`.

    Raises:
      ValueError: fewer than two examples.
    """
    count = len(values)
    if count < 2:
        raise ValueError(f"two halves take two examples at least, got {count}")
    order = np.argsort(-np.asarray(values), kind="stable")
    return np.sort(order[: count // 2]), np.sort(order[count - count // 2 :])


def paired(confident: Sequence[Tokenized], unconfident: Sequence[Tokenized]) -> list[Tokenized]:
    """Rows of two sides, each with its own prompt; a row has the number of its confident example."""
    out = []
    for one, other in zip(confident, unconfident, strict=True):
        for example in (one, other):
            if example.prompts is not None or len(example.completions) != 1:
                raise ValueError(f"{example.where}: a side of a row is one prompt and one completion")
            if example.weight is not None:
                raise ValueError(f"{example.where}: field 'weight' has no place in a row of two examples")
        sides = {"prompts": (one.prompt, other.prompt), "completions": (one.completions[0], other.completions[0])}
        out.append(dataclasses.replace(one, **sides))
    return out


def exchanged(rows: Sequence[Tokenized]) -> list[Tokenized]:
    """Each row with the second side of the row after it, in a circle.

    Batches hold other rows in every epoch, and so a confident example meets another unconfident one each time.
    """
    return [
        dataclasses.replace(
            row, prompts=(row.prompts[0], after.prompts[1]), completions=(row.completions[0], after.completions[1])
        )
        for row, after in zip(rows, [*rows[1:], rows[0]], strict=True)
    ]
