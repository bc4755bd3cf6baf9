"""The embedded corpus: generated preferences with a known gold reward, so that everything runs without a download.

A prompt asks to describe an animal (`"Describe the cat: "`); a completion is one sentence
(`"the cat is kind and quick."`). Gold reward: +1 for the right animal, else -1; +1 for each kind adjective, -1 for
each unkind one; -0.02 for each byte; and -5 in place of all but the length term for anything that is not such a
sentence. The best reward is about 3.3.

Demonstrations name the right animal with probability 3/4 and draw their adjectives evenly, so that imitation leaves
much to gain. Of the 60 prompts, 48 are "train" and 12 are "test"; the two never share a prompt, and each animal and
each template occurs in both. With a begin token prompts fit 32 bytes; with an end token sentences fit 48.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

NOUNS = ("cat", "dog", "horse", "fox", "owl", "bear", "duck", "goat", "frog", "mouse", "wolf", "crow")
TEMPLATES = (
    "Describe the {}: ",
    "What is the {} like? ",
    "Tell me about the {}. ",
    "Say a word on the {}: ",
    "How is the {} today? ",
)
POSITIVE = ("kind", "quick", "calm", "brave", "clever", "gentle", "loyal", "bright")
NEGATIVE = ("rude", "slow", "mean", "lazy", "dirty", "noisy", "cruel", "dull")
CLAUSES = (" as we know", " i would say", " at least here")

PROMPT_LENGTH = 32  # bytes and a begin token
COMPLETION_LENGTH = 48  # bytes and an end token
KINDS = ("completion", "chat", "pairs", "lists", "unpaired", "triples", "ratings", "steps", "sampled_pairs")
UNLABELLED = ("completion", "chat", "ratings", "steps")  # kinds whose records the label noise has no say in
SPLITS = ("train", "test")
ANNOTATORS = 4

LENGTH_PENALTY = 0.02
MALFORMED = -5.0
DESIRABLE = 0.0  # a demonstration of a higher gold reward is labelled desirable: three in five are

TIE = 0.5  # gold rewards closer than that differ in length alone

_GOLD_DRAWS = 8
_SAMPLES = 4
_UNRATED = 0.2
_RIGHT_NOUN = 0.75
_RAMBLE = 0.4
_ADJECTIVE = "|".join(POSITIVE + NEGATIVE)
_SENTENCE = re.compile(
    rf"the (?P<noun>{'|'.join(NOUNS)}) is (?:(?:(?P<a>{_ADJECTIVE}), )?(?P<b>{_ADJECTIVE}) and )?(?P<c>{_ADJECTIVE})"
    rf"(?:{'|'.join(CLAUSES)})?\."
)
_PROMPT_NOUN = {template.format(noun): noun for template in TEMPLATES for noun in NOUNS}


def prompts(split: str = "train") -> list[str]:
    """All prompts of a split. A prompt is in "test" when (template number + noun number) is a multiple of five."""
    _check_in("split", split, SPLITS)
    return [
        template.format(noun)
        for i, template in enumerate(TEMPLATES)
        for j, noun in enumerate(NOUNS)
        if ((i + j) % len(TEMPLATES) == 0) == (split == "test")
    ]


def reward(prompt: str, completion: str, record: Mapping[str, Any]) -> float:
    """`gold_reward` as a reward of online runs: config.rewards.gold.function = "alignment.data.corpus:reward"."""
    return gold_reward(prompt, completion)


def gold_reward(prompt: str, completion: str) -> float:
    """The true reward of a completion. One to three different adjectives count as well-formed; all else is malformed.

    Raises:
      ValueError: the prompt is not one of this corpus.
    """
    if prompt not in _PROMPT_NOUN:
        raise ValueError(f"prompt {prompt!r} is not of the corpus, e.g. {prompts()[0]!r}")
    length_penalty = LENGTH_PENALTY * len(completion.encode("utf-8"))
    match = _SENTENCE.fullmatch(completion)
    if match is None:
        return MALFORMED - length_penalty
    adjectives = [word for word in match.group("a", "b", "c") if word is not None]
    if len(set(adjectives)) != len(adjectives):  # "kind and kind" must not pay
        return MALFORMED - length_penalty
    noun = 1.0 if match["noun"] == _PROMPT_NOUN[prompt] else -1.0
    return noun + sum(1.0 if word in POSITIVE else -1.0 for word in adjectives) - length_penalty


def generate(
    kind: str, size: int, seed: int, label_noise: float = 0.0, split: str = "train", responses: int = 4
) -> list[dict[str, Any]]:
    """`size` records of a kind that `alignment.data.formats` reads; the same arguments give the same records.

    pairs: two independent demonstrations of different gold reward, the better one chosen, then swapped with probability
      `label_noise`; `margin` is the absolute difference of gold reward (it does not tell whether the pair was swapped)
      and `annotator_id` is uniform over four and independent of everything. `preference_proportion` is the share of
      Bradley-Terry raters, whose utility is the gold reward, who would choose what is labelled chosen; it is below 1/2
      for a swapped pair. `tie` says that the two differ in length alone (by less than `TIE`).
    lists: `responses` demonstrations with labels (reward - lowest) / (highest - lowest) in [0, 1], not all equal; with
      probability `label_noise` the labels of a list are mirrored, 1 - label.
    unpaired: one demonstration with the label gold reward > `DESIRABLE`, flipped with probability `label_noise`.
    triples: chosen and rejected as in pairs, noise included, and as `gold` the best of eight other demonstrations.
    ratings: one demonstration; `ratings` by noun (1 right, -1 wrong), adjectives (kind less unkind ones) and verbosity
      (bytes / 20), each missing with probability 0.2, and its gold reward as `reward`.
    steps: one demonstration without its clause, cut into the naming of the animal and one step per adjective; a step is
      right if the animal is the right one or the adjective kind; `correct` says whether the gold reward is above
      `DESIRABLE`.
    sampled_pairs: a pair, noise included, and four `samples` of a policy that has moved on: each the best of eight.
    completion, chat: one demonstration. These and ratings and steps have no noise.

    Args:
      split: train and test use different prompts and different random streams.
    """
    _check_in("kind", kind, KINDS)
    _check_in("split", split, SPLITS)
    if size < 1:
        raise ValueError(f"{size=} must be at least 1")
    if not 0 <= label_noise <= 1:
        raise ValueError(f"{label_noise=} must be in [0, 1]")
    if label_noise and kind in UNLABELLED:
        raise ValueError(f"{label_noise=} needs labels, which records of kind {kind!r} have not")
    if responses < 2:
        raise ValueError(f"{responses=} must be at least 2")
    rng = np.random.default_rng([seed, KINDS.index(kind), SPLITS.index(split)])
    choices = prompts(split)
    records = []
    for _ in range(size):
        prompt = choices[rng.integers(len(choices))]
        if kind == "completion":
            records.append({"prompt": prompt, "completion": demonstration(prompt, rng)})
        elif kind == "chat":
            turns = (("user", prompt), ("assistant", demonstration(prompt, rng)))
            records.append({"messages": [{"role": role, "content": content} for role, content in turns]})
        elif kind == "pairs":
            texts, rewards = _different(prompt, 2, rng)
            chosen = int(np.argmax(rewards)) ^ int(rng.random() < label_noise)
            proportion = 1 / (1 + np.exp(rewards[1 - chosen] - rewards[chosen]))
            records.append(
                {
                    "prompt": prompt,
                    "chosen": texts[chosen],
                    "rejected": texts[1 - chosen],
                    "margin": round(abs(rewards[0] - rewards[1]), 6),
                    "preference_proportion": round(float(proportion), 6),
                    "annotator_id": int(rng.integers(ANNOTATORS)),
                    "tie": bool(abs(rewards[0] - rewards[1]) < TIE),
                }
            )
        elif kind == "unpaired":
            text = demonstration(prompt, rng)
            label = (gold_reward(prompt, text) > DESIRABLE) ^ (rng.random() < label_noise)
            records.append({"prompt": prompt, "completion": text, "label": bool(label)})
        elif kind == "ratings":
            text = demonstration(prompt, rng)
            noun, adjectives = _content(prompt, text)
            rated = [noun, float(sum(adjectives)), len(text.encode("utf-8")) / 20]
            missing = rng.random(len(rated)) < _UNRATED
            ratings = [None if gone else value for value, gone in zip(rated, missing, strict=True)]
            reward = round(gold_reward(prompt, text), 6)
            records.append({"prompt": prompt, "completion": text, "ratings": ratings, "reward": reward})
        elif kind == "steps":
            text = demonstration(prompt, rng)
            noun, adjectives = _content(prompt, text)
            words = re.findall(_ADJECTIVE, text.split(" is ", 1)[1])
            steps = [text.split(" is ", 1)[0], *(f"is {word}" for word in words)]
            labels = [float(value > 0) for value in (noun, *adjectives)]
            correct = bool(gold_reward(prompt, text) > DESIRABLE)
            records.append({"prompt": prompt, "steps": steps, "labels": labels, "correct": correct})
        elif kind == "sampled_pairs":
            texts, rewards = _different(prompt, 2, rng)
            chosen = int(np.argmax(rewards)) ^ int(rng.random() < label_noise)
            samples = [_best_other(prompt, [], rng) for _ in range(_SAMPLES)]
            records.append(
                {"prompt": prompt, "chosen": texts[chosen], "rejected": texts[1 - chosen], "samples": samples}
            )
        elif kind == "triples":
            texts, rewards = _different(prompt, 2, rng)
            chosen = int(np.argmax(rewards)) ^ int(rng.random() < label_noise)
            gold = _best_other(prompt, texts, rng)
            records.append({"prompt": prompt, "gold": gold, "chosen": texts[chosen], "rejected": texts[1 - chosen]})
        else:
            texts, rewards = _different(prompt, responses, rng)
            labels = (np.asarray(rewards) - min(rewards)) / (max(rewards) - min(rewards))
            labels = 1 - labels if rng.random() < label_noise else labels
            records.append({"prompt": prompt, "responses": texts, "labels": [round(float(x), 6) for x in labels]})
    return records


def demonstration(prompt: str, rng: np.random.Generator) -> str:
    """One sentence of mixed quality; four in ten ramble (a third adjective or a clause)."""
    noun = _PROMPT_NOUN[prompt]
    if rng.random() >= _RIGHT_NOUN:
        noun = rng.choice([other for other in NOUNS if other != noun])
    ramble = rng.random() < _RAMBLE
    clause = rng.choice(CLAUSES) if ramble and rng.random() < 0.5 else ""
    *first, last = rng.choice(POSITIVE + NEGATIVE, size=3 if ramble and not clause else 2, replace=False)
    return f"the {noun} is {', '.join(first)} and {last}{clause}."


def write(
    directory: str | os.PathLike, *, size: int = 2048, test_size: int = 256, seed: int = 0, label_noise: float = 0.0
) -> dict[tuple[str, str], pathlib.Path]:
    """Writes KIND_SPLIT.jsonl for every kind and split, to try runs from files; returns the paths by (kind, split)."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    paths = {}
    for kind in KINDS:
        for split, count in (("train", size), ("test", test_size)):
            # Noise belongs to the training labels; a test set must be right.
            noise = label_noise if split == "train" and kind not in UNLABELLED else 0.0
            path = paths[kind, split] = directory / f"{kind}_{split}.jsonl"
            records = generate(kind, count, seed, noise, split)
            path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return paths


def _content(prompt: str, text: str) -> tuple[float, list[float]]:
    """What a demonstration says: 1 for the right animal, else -1, and for each adjective 1 if it is kind, else -1."""
    match = _SENTENCE.fullmatch(text)
    words = [word for word in match.group("a", "b", "c") if word is not None]
    return (1.0 if match["noun"] == _PROMPT_NOUN[prompt] else -1.0), [1.0 if w in POSITIVE else -1.0 for w in words]


def _different(prompt: str, count: int, rng: np.random.Generator) -> tuple[list[str], list[float]]:
    """Independent demonstrations, drawn again until their rewards are not all equal (by more than rounding)."""
    while True:
        texts = [demonstration(prompt, rng) for _ in range(count)]
        rewards = [gold_reward(prompt, text) for text in texts]
        if max(rewards) - min(rewards) > LENGTH_PENALTY / 2:
            return texts, rewards


def _best_other(prompt: str, but: list[str], rng: np.random.Generator) -> str:
    """The best of some demonstrations that are none of `but`."""
    drawn: list[str] = []
    while len(drawn) < _GOLD_DRAWS:
        text = demonstration(prompt, rng)
        drawn += [text] * (text not in but)
    return max(drawn, key=lambda text: gold_reward(prompt, text))


def _check_in(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(allowed)}")
