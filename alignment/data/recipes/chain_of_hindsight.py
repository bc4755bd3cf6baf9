"""Chain of hindsight: both answers of a pair in one text, each after a marker that says which is the better one.

Liu et al., 2023, arXiv 2302.02676. Answers are learnt, good and bad ones, with the end token after each; prompts and
markers are only read. Asked after the good marker, the model then gives a good answer.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

FORMATS = ("p", "n", "np", "pn")  # which answers a text shows, in order: the positive one, the negative one, both
GOOD, BAD = "A helpful answer: ", "An unhelpful answer: "


def hindsight_text(
    prompt: str, good_answer: str, bad_answer: str, form: str, good: str = GOOD, bad: str = BAD
) -> dict[str, Any]:
    """A record of kind `segments`: the prompt with the first marker, then the answers, a marker between them.

    Args:
      form: one of `FORMATS`.
      good, bad: the markers; white space after them is theirs.

    Paper: Liu et al., 2023, arXiv 2302.02676; the four formats of the authors' data code, whose further phrasings of
    the markers are the caller's `good` and `bad`.
    """
    if form not in FORMATS:
        raise ValueError(f"{form=} is not one of {', '.join(FORMATS)}")
    parts = [(good, good_answer) if letter == "p" else (bad, bad_answer) for letter in form]
    (first, answer), rest = parts[0], parts[1:]
    segments, trained = [answer], [True]
    for marker, answer in rest:
        segments += [marker, answer]
        trained += [False, True]
    return {"prompt": prompt + first, "segments": segments, "trained": trained, "ended": trained}


def records(
    pairs: Iterable[Mapping[str, Any]],
    *,
    formats: Sequence[str] = FORMATS,
    good: str = GOOD,
    bad: str = BAD,
    pretraining: Iterable[Mapping[str, Any]] = (),
    pretraining_weight: float = 0.01,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Every pair in every format, and counts. Records of {prompt, completion} in `pretraining` follow as they are.

    With these every record has a weight, 1 for hindsight and `pretraining_weight` for the others, which a loss that
    divides by the weights turns into the paper's second term; without them none has.

    Raises:
      ValueError: an unknown format, or a negative weight.
    """
    if pretraining_weight < 0:
        raise ValueError(f"{pretraining_weight=} must be at least 0")
    pairs, plain = list(pairs), list(pretraining)
    out = [
        hindsight_text(pair["prompt"], pair["chosen"], pair["rejected"], form, good, bad)
        for pair in pairs
        for form in formats
    ]
    counts = {"pairs_read": len(pairs), "hindsight_texts": len(out), "pretraining_texts": len(plain)}
    if plain:
        out = [record | {"weight": 1.0} for record in out]
        out += [
            {"prompt": r["prompt"], "segments": [r["completion"]], "trained": [True], "ended": [True]}
            | {"weight": pretraining_weight}
            for r in plain
        ]
    return out, counts
