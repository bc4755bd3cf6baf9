"""Strata: kinds of completions that are compared only with each other (`stratified_grpo_advantages`).

A stratum is a function (prompt, completion, record) -> int, as a reward is one that gives a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TOOL_CALL = re.compile(r"<(search|tool_call)>")


def tool_calls(prompt: Any, completion: str, record: Mapping[str, Any]) -> int:
    """How many searches or other tool calls the completion makes: the strata of Zhu et al., 2025, arXiv 2510.06214."""
    return len(TOOL_CALL.findall(completion))


def number_of_words(prompt: Any, completion: str, record: Mapping[str, Any]) -> int:
    """Words between white space; 0 for an empty completion."""
    return len(completion.split())


def number_of_characters(prompt: Any, completion: str, record: Mapping[str, Any]) -> int:
    """Characters without the white space around them: on tasks whose answer has a form, how much of it is there."""
    return len(completion.strip())
