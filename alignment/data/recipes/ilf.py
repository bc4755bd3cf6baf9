"""Imitation learning from language feedback: learn the refinement that heeds the feedback best, without the feedback.

Scheurer et al., 2023, arXiv 2303.16755. A record is {prompt, draft, feedback, refinements}; who refines and who scores
are the caller's (a prompted model each, in the paper).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alignment import checks

Array = jax.Array


def ilf_scores(yes_logps: Array, no_logps: Array) -> Array:
    """Mean over prompt templates of p(yes) / (p(yes) + p(no)): does the refinement heed the feedback?

    Args:
      yes_logps, no_logps: log-prob of either answer under each of K templates.

    Shapes: both `[..., K]`; result float32 `[...]`, in (0, 1).

    Raises:
      AssertionError: shapes differ, or not floating.

    Paper: Scheurer et al., 2023, arXiv 2303.16755 (an ensemble of five templates).
    """
    yes, no = checks.floats(yes_logps=yes_logps, no_logps=no_logps)
    return jnp.mean(jax.nn.sigmoid(yes - no), axis=-1)


def records(
    drafts: Iterable[Mapping[str, Any]], score: Callable[[Mapping[str, Any], Sequence[str]], Sequence[float]]
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Records of kind `completion`, the prompt alone and its chosen refinement, and counts.

    Neither draft nor feedback is in the prompt: the model is to answer so at once.

    Args:
      score: (record, refinements) -> a number for each, the higher the better; the first of several best is taken.

    Raises:
      ValueError: as many scores as refinements are needed, all finite, and at least one refinement.
    """
    out, counts = [], {"drafts": 0, "refinements": 0, "chosen_equal_to_the_draft": 0}
    for record in drafts:
        refinements = list(record["refinements"])
        scores = np.asarray(score(record, refinements), np.float64)
        if not refinements or scores.shape != (len(refinements),) or not np.isfinite(scores).all():
            raise ValueError(f"prompt {record['prompt']!r}: {len(refinements)} refinements scored {scores.tolist()}")
        chosen = refinements[int(np.argmax(scores))]
        counts["drafts"] += 1
        counts["refinements"] += len(refinements)
        counts["chosen_equal_to_the_draft"] += chosen == record["draft"]
        out.append({"prompt": record["prompt"], "completion": chosen})
    return out, counts
