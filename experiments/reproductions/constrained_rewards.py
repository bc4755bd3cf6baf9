"""Two rewards whose sum passes the point where more of them harms, and constraints that stop there (2310.04373)."""

from experiments import constrained_bandit
from experiments.reproductions import style

SMALL = {"seeds": 2, "steps": 60}


def tables(*, seeds=5, steps=2000, every=20):
    rewards, utilities = constrained_bandit.problems(seeds)
    histories, thresholds = constrained_bandit.histories(rewards, utilities, steps)
    training = [
        {
            "method": method, "seed": s, "step": t + 1, "reward_1": float(history.returns[s, t, 0]),
            "reward_2": float(history.returns[s, t, 1]), "utility": float(history.utilities[s, t]),
            "kl_nats": float(history.kls[s, t]),
            "off_threshold": float(abs(history.returns[s, t] - thresholds[s]).max()),
        }
        for method, history in histories.items()
        for s in range(seeds)
        for t in range(every - 1, steps, every)
    ]  # fmt: skip
    points = [{"seed": s, "reward_1": float(x), "reward_2": float(y)} for s, (x, y) in enumerate(thresholds)]
    best = [
        {"method": method, "seed": s, "best_utility": float(history.utilities[s].max())}
        for method, history in histories.items()
        for s in range(seeds)
    ]
    return {"training": training, "proxy_points": points, "best": best}


def at_end(tables, method: str) -> dict[str, float]:
    """Means over the bandits and the last tenth of the steps."""
    rows = style.select(tables["training"], method=method)
    last = max(row["step"] for row in rows)
    rows = [row for row in rows if row["step"] > 0.9 * last]
    return {key: sum(row[key] for row in rows) / len(rows) for key in ("off_threshold", "utility", "kl_nats")}


def best(tables, method: str) -> float:
    """Mean over the bandits of the best utility that a run passed."""
    values = [row["best_utility"] for row in style.select(tables["best"], method=method)]
    return sum(values) / len(values)


def figure(tables):
    columns = {
        "off_threshold": "largest distance from a threshold",
        "utility": "utility",
        "kl_nats": "KL from the start, nats",
    }
    drawn, axes = style.curves(tables["training"], "step", columns)
    axes[0].legend()
    return drawn
