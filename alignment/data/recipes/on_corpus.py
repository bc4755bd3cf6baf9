"""The recipes for demonstrations on the generated corpus, with evaluators that know it: the sources recipe:NAME.

What a model says in the papers (who refines, criticises, translates, which skills are missing) is said here by a few
lines that know how the corpus' sentences are made, so that every recipe runs without a model. `experiments.make_data`
runs the same recipes on files.
"""

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from alignment.data import corpus
from alignment.data.recipes import (
    chain_of_hindsight,
    crlft,
    feedback_pretraining,
    fence,
    ilf,
    multilingual_ift,
    pit,
    raft,
    stat,
)

Records = list[dict[str, Any]]
Made = tuple[Records, dict[str, int]]

GOOD_MARKER, BAD_MARKER = "Good: ", "Bad: "
GOOD_TOKEN, BAD_TOKEN = "+", "-"  # bytes that no sentence has
WEAK_SKILLS = ("owl", "bear", "duck")  # animals that the student has not learnt to describe
UNSEEN_WORDS = (*corpus.POSITIVE[-2:], *corpus.NEGATIVE[-2:])  # that questions of the test split ask about


def _rng(name: str, seed: int, split: str) -> np.random.Generator:
    return np.random.default_rng([seed, corpus.SPLITS.index(split), zlib.crc32(name.encode())])


def _prompts(rng: np.random.Generator, split: str, size: int) -> list[str]:
    choices = corpus.prompts(split)
    return [choices[i] for i in rng.integers(len(choices), size=size)]


def _best(prompt: str, rng: np.random.Generator, draws: int) -> str:
    return max((corpus.demonstration(prompt, rng) for _ in range(draws)), key=lambda t: corpus.gold_reward(prompt, t))


def noun_of(prompt: str) -> str:
    return next(noun for noun in corpus.NOUNS if re.search(rf"\b{noun}\b", prompt))


def words_of(text: str) -> list[str]:
    return [w for w in re.findall(r"\w+", text) if w in (*corpus.POSITIVE, *corpus.NEGATIVE)]


# --- inputs ----------------------------------------------------------------------------------------------------------


def conversations(size: int, seed: int, split: str) -> Records:
    """{prompt, completion, source}: the expert gives the best of eight sentences, the other source any one."""
    rng = _rng("crlft", seed, split)
    return [
        {"prompt": p, "source": source, "completion": _best(p, rng, 8 if source == "expert" else 1)}
        for i, p in enumerate(_prompts(rng, split, size))
        for source in (("expert", "suboptimal")[i % 2],)
    ]


def documents(size: int, seed: int, split: str) -> Records:
    """{prompt, segments, scores}: "the cat is ", "kind, ", "rude and ", ...; what is wrong or unkind scores 1."""
    rng, out = _rng("phf_scored", seed, split), []
    for prompt in _prompts(rng, split, size):
        opening, rest = re.fullmatch(r"(the \w+ is )(.*)", corpus.demonstration(prompt, rng)).groups()
        segments = [opening, *re.split(r"(?<=, )|(?<= and )", rest)]
        bad = [opening != f"the {noun_of(prompt)} is ", *(words_of(s)[0] in corpus.NEGATIVE for s in segments[1:])]
        out.append({"prompt": prompt, "segments": segments, "scores": [float(b) for b in bad]})
    return out


def whole(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document in one segment, as bad as its worst."""
    return document | {"segments": ["".join(document["segments"])], "scores": [max(document["scores"])]}


def candidates(size: int, seed: int, split: str, responses: int = 8) -> Records:
    """{prompt, responses, rewards}: sentences of the corpus, by its gold reward."""
    rng, out = _rng("raft", seed, split), []
    for prompt in _prompts(rng, split, size):
        texts = [corpus.demonstration(prompt, rng) for _ in range(responses)]
        out.append({"prompt": prompt, "responses": texts, "rewards": [corpus.gold_reward(prompt, t) for t in texts]})
    return out


def drafts(size: int, seed: int, split: str, refinements: int = 5) -> Records:
    """{prompt, draft, feedback, refinements}: feedback names an unkind word, refinements replace words at random."""
    rng, out = _rng("ilf", seed, split), []
    while len(out) < size:
        (prompt,) = _prompts(rng, split, 1)
        draft = corpus.demonstration(prompt, rng)
        unkind = [w for w in words_of(draft) if w in corpus.NEGATIVE]
        if not unkind:
            continue  # there is nothing to say
        refined = []
        for _ in range(refinements):
            fresh = [w for w in (*corpus.POSITIVE, *corpus.NEGATIVE) if w not in draft]
            refined.append(draft.replace(str(rng.choice(words_of(draft))), str(rng.choice(fresh))))
        out.append({"prompt": prompt, "draft": draft, "feedback": f"do not say {unkind[0]}", "refinements": refined})
    return out


def heeds(record: Mapping[str, Any], refinements: Sequence[str]) -> list[float]:
    """1 for a refinement without the word that the feedback names, and 1/2 more if nothing unkind took its place."""
    word = record["feedback"].removeprefix("do not say ")
    before = sum(w in corpus.NEGATIVE for w in words_of(record["draft"]))
    scores = []
    for text in refinements:
        fewer = sum(w in corpus.NEGATIVE for w in words_of(text)) < before
        scores.append(float(word not in words_of(text)) + 0.5 * fewer)
    return scores


def claims(text: str) -> list[str]:
    """The claims of a sentence: which animal it is about, then its adjectives."""
    return [text.split(" ")[1], *words_of(text)]


def critic(prompt: str, claim: str) -> fence.Judged:
    right = claim == noun_of(prompt) if claim in corpus.NOUNS else claim in corpus.POSITIVE
    return fence.Judged(claim, "supported" if right else "contradictory", "" if right else f"{claim} is not so")


def knows(prompt: str, claim: str) -> bool:
    """The generator knows the animals, and what is wrong with every other unkind word."""
    return claim in corpus.NOUNS or corpus.NEGATIVE.index(claim) % 2 == 0


def rewrite(prompt: str, verdict: fence.Judged) -> str:
    if verdict.claim in corpus.NOUNS:
        return noun_of(prompt)
    return corpus.POSITIVE[corpus.NEGATIVE.index(verdict.claim)]


def sentence(prompt: str, told: Sequence[str]) -> str:
    noun = next((c for c in told if c in corpus.NOUNS), noun_of(prompt))
    words = list(dict.fromkeys(c for c in told if c not in corpus.NOUNS))
    return f"the {noun} is {', '.join(words[:-1])}{' and ' if len(words) > 1 else ''}{words[-1] if words else ''}."


def questions(size: int, seed: int, split: str) -> Made:
    """Pairs of kind `pairs`: does this sentence say that word? The words of the test split are asked in no other."""
    rng, out = _rng("meta_tuning", seed, split), []
    words = [w for w in (*corpus.POSITIVE, *corpus.NEGATIVE) if (w in UNSEEN_WORDS) == (split == "test")]
    counts = {"questions": 0, "answered_yes": 0}
    while len(out) < size:
        (prompt,) = _prompts(rng, split, 1)
        text = corpus.demonstration(prompt, rng)
        word, yes = str(rng.choice(words)), bool(rng.random() < 0.5)
        if yes and word not in words_of(text):  # make it so, for a word is rarely said by chance
            text = text.replace(words_of(text)[0], word)
        yes = word in words_of(text)
        answers = ("yes", "no") if yes else ("no", "yes")
        out.append({"prompt": f"Is it {word}? {text} ", "chosen": answers[0], "rejected": answers[1]})
        counts["questions"] += 1
        counts["answered_yes"] += yes
    return out, counts


# --- recipes: (size, seed, split) -> (records, counts) ---------------------------------------------------------------


def hindsight(size: int, seed: int, split: str) -> Made:
    return chain_of_hindsight.records(
        corpus.generate("pairs", size, seed, split=split),
        good=GOOD_MARKER, bad=BAD_MARKER, pretraining=corpus.generate("completion", size, seed, split=split),
    )  # fmt: skip


def sources(size: int, seed: int, split: str) -> Made:
    return crlft.records(conversations(size, seed, split))


def conditional(size: int, seed: int, split: str) -> Made:
    rng = _rng("phf_conditional", seed, split)
    texts = [whole(d) for d in documents(size, seed, split)]
    tokens = {"good": GOOD_TOKEN, "bad": BAD_TOKEN}
    return feedback_pretraining.conditional_records(texts, rng, threshold=0.0, **tokens)


def filtered(size: int, seed: int, split: str) -> Made:
    return feedback_pretraining.filtered_records(documents(size, seed, split), threshold=0.34)


def scored(size: int, seed: int, split: str) -> Made:
    return feedback_pretraining.scored_records(documents(size, seed, split))


def best_samples(size: int, seed: int, split: str) -> Made:
    return raft.best_of_each(candidates(size, seed, split))


def refinements(size: int, seed: int, split: str) -> Made:
    return ilf.records(drafts(size, seed, split), heeds)


def missing_skills(size: int, seed: int, split: str) -> Made:
    rng = _rng("stat", seed, split)
    training = [
        {"prompt": p, "completion": _best(p, rng, 8), "skills": [noun_of(p)]} for p in _prompts(rng, split, size)
    ]
    validation = [noun_of(p) for p in _prompts(rng, split, size)]
    steps = {noun: (0.9, 0.2) if noun in WEAK_SKILLS else (0.95, 0.95) for noun in corpus.NOUNS}
    profiles = [[noun] for noun in validation if stat.stat_difficult(steps[noun])]
    return stat.select(training, profiles, rng)


def native_texts(size: int, seed: int, split: str) -> Made:
    """The other language is written in capitals."""
    rng = _rng("multilingual_ift", seed, split)
    passages = [corpus.demonstration(p, rng).upper() for p in _prompts(rng, split, size)]
    return multilingual_ift.records(
        passages,
        translate=str.lower,
        instruct=lambda text: f"Describe the {claims(text)[0]}: ",
        translate_back=str.upper,
        score=lambda _, text: sum(w in corpus.POSITIVE for w in words_of(text.lower())),
        threshold=1.0,
    )


def revised(size: int, seed: int, split: str) -> tuple[Records, Records, dict[str, int]]:
    """(demonstrations, pairs, counts) of FenCE, from five sentences for each prompt."""
    rng = _rng("fence", seed, split)
    asked = [
        {"prompt": p, "answers": [claims(corpus.demonstration(p, rng)) for _ in range(5)]}
        for p in _prompts(rng, split, size)
    ]
    return fence.records(asked, critic, knows, rewrite, sentence)


def revised_demonstrations(size: int, seed: int, split: str) -> Made:
    demonstrations, _, counts = revised(size, seed, split)
    return demonstrations, counts


def revised_pairs(size: int, seed: int, split: str) -> Made:
    _, pairs, counts = revised(size, seed, split)
    return pairs, counts


def answered_prompts(size: int, seed: int, split: str) -> Made:
    """Prompts with both answers of a pair, the chosen one first, as `demonstrations` of an online run."""
    pairs = corpus.generate("pairs", size, seed, split=split)
    out = [{"prompt": p["prompt"], "demonstrations": [p["chosen"], p["rejected"]]} for p in pairs]
    return out, {"pairs": size}


def improvements(size: int, seed: int, split: str) -> Made:
    return pit.pit_improvements(corpus.generate("pairs", size, seed, split=split)), {"pairs": size}


def improvement_tasks(size: int, seed: int, split: str) -> Made:
    return pit.pit_tasks(corpus.generate("pairs", size, seed, split=split)), {"pairs": size}


def gap_lists(size: int, seed: int, split: str) -> Made:
    return pit.pit_gap_lists(corpus.generate("pairs", size, seed, split=split)), {"pairs": size}


def gold_gap(prompt: str, completion: str, record: Mapping[str, Any]) -> float:
    """The true gap between a completion and the answer that a prompt of `improvement_tasks` shows, as a reward."""
    question, answer = record["question"], record["shown"]
    return corpus.gold_reward(question, completion) - corpus.gold_reward(question, answer)


RECIPES: dict[str, Callable[[int, int, str], Made]] = {
    "answered_prompts": answered_prompts,
    "chain_of_hindsight": hindsight,
    "crlft": sources,
    "fence": revised_demonstrations,
    "fence_pairs": revised_pairs,
    "ilf": refinements,
    "meta_tuning": questions,
    "multilingual_ift": native_texts,
    "phf_conditional": conditional,
    "phf_filtering": filtered,
    "phf_scored": scored,
    "pit_gaps": gap_lists,
    "pit_improvements": improvements,
    "pit_tasks": improvement_tasks,
    "raft": best_samples,
    "stat": missing_skills,
}


def records(name: str, size: int, seed: int, split: str) -> Made:
    """What a recipe makes of `size` of its inputs, and counts; the same arguments give the same.

    Raises:
      ValueError: no such recipe, or a size below 1.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe:{name}: no such recipe; there are: {', '.join(RECIPES)}")
    if size < 1:
        raise ValueError(f"{size=} must be at least 1")
    return RECIPES[name](size, seed, split)
