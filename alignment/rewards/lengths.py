"""Rewards of length alone: the second objective of runs that trade an answer's quality against its size."""

from collections.abc import Mapping
from typing import Any

BYTE = 0.1


def brevity(prompt: str, completion: str, record: Mapping[str, Any]) -> float:
    """-0.1 for each byte."""
    return -BYTE * len(completion.encode("utf-8"))


def length_cost(prompt: str, completion: str, record: Mapping[str, Any]) -> float:
    """0.1 for each byte, as a cost."""
    return BYTE * len(completion.encode("utf-8"))


def shortness(prompt: str, completion: str, record: Mapping[str, Any]) -> float:
    """1 / (1 + 0.1 bytes): in (0, 1], for methods that need rewards above 0."""
    return 1 / (1 + BYTE * len(completion.encode("utf-8")))
