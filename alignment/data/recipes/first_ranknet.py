"""Lists to rerank by one token: a query, candidates with a letter each, and the order of the letters as the answer.

In the manner of Reddy et al., 2024, arXiv 2406.15657, with relevance that can be counted: the number of the query's
letters that a candidate has. The best response spells the whole order ("B > A > C"), the others are the letters of the
candidates that follow.
"""

from typing import Any

import numpy as np

_CONSONANTS, _VOWELS = "bcdfghjklmnpqrstvwxz", "aeiouy"


def reranking_list(rng: np.random.Generator, candidates: int = 4) -> dict[str, Any]:
    """A record of the kind `lists`: prompt, responses (best first) and labels (candidates, .., 1).

    The query has four consonants. No two candidates share as many of them, and what else they have are vowels.
    ValueError unless there are 2 to 5 candidates.
    """
    if not 2 <= candidates <= 5:
        raise ValueError(f"candidates must lie in [2, 5], got {candidates}")
    query = rng.choice(list(_CONSONANTS), 4, replace=False)
    shared = rng.choice(5, candidates, replace=False)
    words = [
        "".join(rng.permutation([*rng.choice(query, count, replace=False), *rng.choice(list(_VOWELS), 4 - count)]))
        for count in shared
    ]
    letters = [chr(ord("A") + i) for i in range(candidates)]
    order = [letters[i] for i in np.argsort(-shared)]
    prompt = " ".join([f"{''.join(query)}:", *(f"{x}={word}" for x, word in zip(letters, words, strict=True))])
    return {
        "prompt": prompt + " ",
        "responses": [" > ".join(order), *order[1:]],
        "labels": [float(label) for label in range(candidates, 0, -1)],
    }
