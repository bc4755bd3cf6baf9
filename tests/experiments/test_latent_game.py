"""The word game of LSPO: pairs say what the solution says, and a tiny run goes through and writes what it promises."""

import json
from collections import Counter

import numpy as np
import pytest

from experiments import latent_game

GATE = next(iter(latent_game.GAMES.values()))


def test_latents_of_the_phrases_are_their_strategies():
    texts = list(latent_game.STRATEGY)
    points = latent_game.embeddings(texts)
    assert points.shape[0] == len(texts) and np.allclose(np.linalg.norm(points, axis=1), 1)
    games = latent_game.games
    found = np.asarray(games.lloyd(points, games.farthest_points(points, count=3)).assignments)
    assert len(set(zip(found.tolist(), latent_game.STRATEGY.values(), strict=True))) == 3


@pytest.mark.parametrize(
    ("counts", "preferred"),
    [((70, 20, 10), {(1, 0), (2, 0)}), ((25, 50, 25), set()), ((10, 10, 80), {(0, 2), (1, 2), (1, 0)})],
)
def test_what_the_solution_says_more_often_than_the_model_is_preferred(counts, preferred):
    """The solution is (1, 2, 1) / 4; candidates that already are in these shares teach nothing."""
    texts = [latent_game.PHRASES[k][i % 4] for k, n in enumerate(counts) for i in range(n)]
    latents = np.array([latent_game.STRATEGY[t] for t in texts])
    pairs, solved = latent_game.pairs_of(GATE, texts, latents)
    assert {(latent_game.STRATEGY[a], latent_game.STRATEGY[b]) for a, b in pairs} == preferred
    assert solved < 0.05
    assert max(Counter(pairs).values(), default=0) <= max(counts) ** 2


def test_impure_latents_are_solved_less_well():
    """Attack and defend in one latent: a game of two latents cannot tell them apart, and the other one is played."""
    texts = [latent_game.PHRASES[k][i % 4] for k in range(3) for i in range(12)]
    latents = np.array([latent_game.STRATEGY[t] // 2 for t in texts])
    _, solved = latent_game.pairs_of(GATE, texts, latents)
    assert solved > 0.2


def test_a_tiny_run_writes_every_iteration_a_table_and_a_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(latent_game, "_CANDIDATES", 16)
    monkeypatch.setattr(latent_game, "_PAIRS", 8)
    monkeypatch.setattr(
        latent_game, "_SIZES", {"hidden_size": 16, "intermediate_size": 16, "num_layers": 1, "num_heads": 2}
    )
    said = {prompt: [p for phrases in latent_game.PHRASES for p in phrases[:2]] for prompt in latent_game.GAMES}
    monkeypatch.setattr(latent_game, "candidates", lambda *_: said)  # so small a model says no whole phrase
    lines = latent_game.run(tmp_path, seeds=1, iterations=1, teaching=2)
    stored = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert stored == lines and [x["iteration"] for x in lines] == [0, 0, 1, 1]
    for x in lines:
        assert x["exploitability"] >= 0 and sum(x["strategies"]) == pytest.approx(1) and 0 < x["moves"] <= 1
    assert lines[0]["pairs"] > 0 and "pairs" not in lines[-1]
    assert lines[0]["strategies"] != lines[2]["strategies"]  # it has been trained
    assert len((tmp_path / "table.md").read_text().splitlines()) == 2 + len(latent_game.GAMES)
    assert (tmp_path / "figure.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="--repetitions: must be at least 1, got 0"):
        latent_game.run(tmp_path, seeds=0)
