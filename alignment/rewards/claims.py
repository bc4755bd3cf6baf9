"""Claims of an answer: rules that split and verify without a model, and how a splitter is run as safely as a reward.

A splitter is a function `(prompt, completion, record) -> list of texts`, empty if the answer abstains; a verifier is a
judge, `(prompt, claim, record) -> bool`, as in `alignment.rewards.judges`: a rule, a model or a program. FActScore
(`alignment.evaluation.factscore`) is the arithmetic on their verdicts.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from alignment.rewards import instructions, verifiable, worker

FILE = "claims_file"
_ABSTAINS = re.compile(r"\bI (?:do not|don['’]t|cannot|can['’]t) (?:know|say|answer|tell)\b", re.IGNORECASE)


def sentences(prompt: Any, completion: str, record: Mapping[str, Any]) -> list[str]:
    """The sentences of the answer; none if one of them says that the writer does not know."""
    return [] if _ABSTAINS.search(completion) else instructions.sentences(completion)


def stated_in_knowledge(prompt: Any, claim: str, record: Mapping[str, Any]) -> bool:
    """Whether the claim stands in the record's `knowledge`, a text, up to case, punctuation and articles."""
    stated = f" {verifiable.normalised(record['knowledge'])} "
    return f" {verifiable.normalised(claim)} " in stated


@dataclasses.dataclass(frozen=True)
class StoredClaims:
    """A splitter as a reward: writes the claims to the record's `claims_file` and gives their number.

    So `RewardRunner` calls it as it calls everything else: in worker processes, with a time limit, failures counted.
    `split` is a function or "package.module:function". ValueError if it gives anything but a list of texts.
    """

    split: str | Callable[[Any, str, Mapping[str, Any]], list[str]]

    def __call__(self, prompt: Any, completion: str, record: Mapping[str, Any]) -> float:
        split = self.split
        if isinstance(split, str):
            module, _, name = split.partition(":")
            split = worker.load(("module", (module, name)))
        claims = split(prompt, completion, {k: v for k, v in record.items() if k != FILE})
        if not isinstance(claims, list | tuple) or not all(isinstance(c, str) and c.strip() for c in claims):
            raise ValueError(f"a splitter must give a list of texts, got {claims!r:.200}")
        Path(record[FILE]).write_text(json.dumps(list(claims)), encoding="utf-8")
        return float(len(claims))
