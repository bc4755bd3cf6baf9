"""Skill-targeted adaptive training: more of the training questions whose skills the student was found to miss.

2025, arXiv 2510.10023. A process reward model says which validation questions are difficult, a teacher which skills
were missing there; both are the caller's.
"""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def stat_difficult(step_rewards: Sequence[float], *, tau1: float = 0.85, tau2: float = 0.7) -> bool:
    """Whether a response shows its question to be difficult: its last or its mean reward is at most tau1, or any
    reward before the last one at most tau2.

    Raises:
      ValueError: no step.

    Paper: arXiv 2510.10023.
    """
    rewards = np.asarray(step_rewards, np.float64)
    if rewards.ndim != 1 or not rewards.size:
        raise ValueError(f"step_rewards must be a vector of at least one number, got shape {rewards.shape}")
    return bool(rewards[-1] <= tau1 or rewards.mean() <= tau1 or (rewards[:-1] <= tau2).any())


def stat_weights(profiles: Iterable[Iterable[str]], skill_map: Mapping[str, Sequence[int]], count: int) -> np.ndarray:
    """The law that training questions are drawn by: w(p) ~ sum_q sum_{s missing in q} [p in Map(s)] / |Map(s)|.

    Uniform within a skill, so that each question of a rare skill comes more often.

    Args:
      profiles: of each difficult question, the missing skills; a skill named twice counts once.
      skill_map: skill -> numbers of the training questions that need it.
      count: how many training questions there are.

    Shapes: result float64 `[count]`, sums to 1.

    Raises:
      ValueError: no missing skill has a training question.

    Paper: arXiv 2510.10023 (STAT-Sel).
    """
    weights = np.zeros(count)
    for profile in profiles:
        for skill in sorted(set(profile)):
            questions = skill_map.get(skill, ())
            weights[list(questions)] += 1 / max(len(questions), 1)
    if not weights.sum():
        raise ValueError("no missing skill has a training question, so there is nothing to draw")
    return weights / weights.sum()


def select(
    questions: Sequence[Mapping[str, Any]],
    profiles: Iterable[Iterable[str]],
    rng: np.random.Generator,
    *,
    draws: int = 5,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """STAT-Sel: for every difficult question and missing skill, `draws` training questions that need the skill.

    Args:
      questions: training records {prompt, completion, skills}.
      profiles: missing skills of every difficult *validation* question.
      draws: with replacement; 5 in the paper's text, 3 in its algorithm box.

    Returns:
      records of kind `completion`, and counts.
    """
    if draws < 1:
        raise ValueError(f"{draws=} must be at least 1")
    skill_map: dict[str, list[int]] = collections.defaultdict(list)
    for number, question in enumerate(questions):
        for skill in set(question["skills"]):
            skill_map[skill].append(number)
    out, counts = [], dict.fromkeys(("difficult_questions", "missing_skills", "skills_without_a_question"), 0)
    drawn: set[int] = set()
    for profile in profiles:
        counts["difficult_questions"] += 1
        for skill in sorted(set(profile)):
            counts["missing_skills"] += 1
            if skill not in skill_map:
                counts["skills_without_a_question"] += 1
                continue
            chosen = rng.choice(skill_map[skill], size=draws).tolist()
            drawn |= set(chosen)
            out += [{k: questions[i][k] for k in ("prompt", "completion")} for i in chosen]
    counts |= {"training_questions": len(questions), "drawn": len(out), "distinct": len(drawn)}
    return out, counts


def synthesise(
    proposals: Iterable[Mapping[str, Any]], answer: Callable[[str], Any], *, agreeing: int = 2
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """STAT-Syn: of new questions {prompt, solutions}, those whose solutions agree often enough, and only these.

    Args:
      answer: the final answer of a solution, what solutions agree in; None for a solution without one.
      agreeing: how many solutions must share the commonest answer; 2 of 3 in the paper.

    Returns:
      records of kind `completion`, one per solution that is kept, and counts.
    """
    out, counts = [], dict.fromkeys(("questions", "kept_questions", "solutions", "kept_solutions"), 0)
    for proposal in proposals:
        answers = [answer(solution) for solution in proposal["solutions"]]
        common = collections.Counter(a for a in answers if a is not None).most_common(1)
        counts["questions"] += 1
        counts["solutions"] += len(answers)
        if common and common[0][1] >= agreeing:
            kept = [s for s, a in zip(proposal["solutions"], answers, strict=True) if a == common[0][0]]
            counts["kept_questions"] += 1
            counts["kept_solutions"] += len(kept)
            out += [{"prompt": proposal["prompt"], "completion": s} for s in kept]
    return out, counts
