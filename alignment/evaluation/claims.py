"""Rules that split an answer into claims and verify them, for FActScore without a model.

A splitter is a function `(prompt, completion, record) -> list of texts`, empty if the answer abstains; a verifier is a
judge, `(prompt, claim, record) -> bool`, as in `alignment.rewards.judges`: a rule, a model or a program.
"""

import re
from collections.abc import Mapping
from typing import Any

from alignment.rewards import instructions, verifiable

_ABSTAINS = re.compile(r"\bI (?:do not|don['’]t|cannot|can['’]t) (?:know|say|answer|tell)\b", re.IGNORECASE)


def sentences(prompt: Any, completion: str, record: Mapping[str, Any]) -> list[str]:
    """The sentences of the answer; none if one of them says that the writer does not know."""
    return [] if _ABSTAINS.search(completion) else instructions.sentences(completion)


def stated_in_knowledge(prompt: Any, claim: str, record: Mapping[str, Any]) -> bool:
    """Whether the claim stands in the record's `knowledge`, a text, up to case, punctuation and articles."""
    stated = f" {verifiable.normalised(record['knowledge'])} "
    return f" {verifiable.normalised(claim)} " in stated
