"""C-RLFT's data: the prompt says which source an answer is of, and the answer weighs as much as its source is worth.

Wang et al., 2023, arXiv 2309.11235 (OpenChat). The loss is `alignment.losses.crlft`; afterwards the expert is asked.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

PREFIXES = {"expert": "GPT4 User: ", "suboptimal": "GPT3 User: "}
WEIGHTS = {"expert": 1.0, "suboptimal": 0.1}


def crlft_weights(rewards: Mapping[str, float], *, beta: float) -> dict[str, float]:
    """exp(r / beta) of every source's coarse reward, over the largest: only ratios matter.

    Raises:
      ValueError: beta not in (0, inf).

    Paper: Wang et al., 2023, arXiv 2309.11235. Rewards of 1 and 0.1 with beta = 0.9 / log 10 are the weights 1 and 0.1.
    """
    if not beta > 0:
        raise ValueError(f"{beta=} must lie in (0, inf)")
    top = max(rewards.values())
    return {source: float(np.exp((reward - top) / beta)) for source, reward in rewards.items()}


def records(
    conversations: Iterable[Mapping[str, Any]],
    *,
    prefixes: Mapping[str, str] = PREFIXES,
    weights: Mapping[str, float] = WEIGHTS,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Records of kind `completion` with a weight, from {prompt, completion, source}, and counts by source.

    Raises:
      ValueError: a source without a prefix or a weight.
    """
    out, counts = [], dict.fromkeys(prefixes, 0)
    for number, record in enumerate(conversations, 1):
        source = record["source"]
        if source not in prefixes or source not in weights:
            raise ValueError(f"record {number}: source {source!r} is not one of {', '.join(prefixes)}")
        counts[source] += 1
        prompt = prefixes[source] + record["prompt"]
        out.append({"prompt": prompt, "completion": record["completion"], "weight": weights[source]})
    return out, counts
