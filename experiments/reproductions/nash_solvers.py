"""Self-play on a cycle of preferences: which solvers come to rest at the Nash policy (arXiv 2407.00617)."""

import jax
import jax.numpy as jnp
import numpy as np

from alignment import games
from experiments.reproductions import style

SMALL = None
SIZE = 5
TAU = 0.1
STEP = 0.05  # that of the regularised game; INPO's eta is its inverse
FREE, REGULARISED = "no regularisation", f"KL regularisation, tau = {TAU:g}"
SOLVERS = (
    (FREE, "SPO (multiplicative weights)"),
    (FREE, "ONPO (optimistic)"),
    (FREE, "ONPO, 256 labels a step"),
    (REGULARISED, "INPO (mirror descent)"),
    (REGULARISED, "INPO, falling step"),
    (REGULARISED, "INPO, 256 labels a step"),
    (REGULARISED, "Nash-MD"),
    (REGULARISED, "Nash-MD, falling step"),
)


def plays(key, preferences, start, steps: int) -> list[games.SelfPlay]:
    """The runs of `SOLVERS` from one start, which is the reference of the regularised game too."""
    game = (preferences, start)
    tied = (preferences, start, start)
    free, inpo = {"eta": 1.0, "steps": steps}, {"eta": 1 / STEP, "tau": TAU, "steps": steps}
    return [
        games.multiplicative_weights(*game, **free),
        games.optimistic_omd(*game, **free),
        games.onpo_self_play(key, *game, pairs=256, **free),
        games.omd_self_play(*tied, **inpo),
        games.omd_self_play_decreasing(*tied, tau=TAU, steps=steps),
        games.inpo_self_play(key, *game, pairs=256, **inpo),
        games.nash_md(*tied, eta=STEP, tau=TAU, steps=steps),
        games.nash_md_decreasing(*tied, tau=TAU, steps=steps),
    ]


def tables(*, seeds=10, steps=2000, points=60):
    preferences = games.cyclic_preferences(SIZE)
    at = np.unique(np.geomspace(1, steps, points).astype(int))
    keys = jax.random.split(jax.random.key(0), seeds)
    starts = jax.nn.log_softmax(jax.random.normal(jax.random.key(1), (seeds, SIZE)))
    solutions = games.regularised_nash(jnp.broadcast_to(preferences, (seeds, SIZE, SIZE)), starts, tau=TAU)

    def one(key, start, solution):
        """For each solver the gaps of its policies and of their averages, and the distance from the solution."""

        def measured(game, play):
            def gap(policy):
                if game == FREE:
                    return games.duality_gap(preferences, policy)
                return games.regularised_duality_gap(preferences, policy, start, tau=TAU)

            last, average = play.iterates[at], play.averages[at]
            kls = jax.vmap(lambda policy: games.kl_divergence(solution, policy))(last)
            return jax.vmap(gap)(last), jax.vmap(gap)(average), kls

        return [
            measured(game, play) for (game, _), play in zip(SOLVERS, plays(key, preferences, start, steps), strict=True)
        ]

    found = jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys, starts, jnp.asarray(solutions, jnp.float32)))
    gaps, distances = [], []
    for (game, solver), (last, average, kls) in zip(SOLVERS, found, strict=True):
        for s in range(seeds):
            for i, t in enumerate(at.tolist()):
                row = {"game": game, "solver": solver, "seed": s, "step": t}
                gaps += [
                    {**row, "policy": "last", "gap": float(last[s, i])},
                    {**row, "policy": "average", "gap": float(average[s, i])},
                ]
                if game == REGULARISED:
                    distances.append({**row, "kl_nats": float(kls[s, i])})
    bound = [{"step": t, "kl_nats": 8 / (TAU**2 * (t + 1))} for t in at.tolist()]
    return {"gaps": gaps, "distances": distances, "bound": bound}


def at_end(tables, solver: str, policy: str) -> float:
    """Mean gap over the starts after the last step."""
    rows = style.select(tables["gaps"], solver=solver, policy=policy)
    return style.over_seeds(rows, "step", "gap")[1][:, -1].mean()


def largest_share_of_bound(tables) -> float:
    """The distance of Nash-MD with falling steps from the solution over its bound, where that is largest."""
    rows = style.select(tables["distances"], solver="Nash-MD, falling step")
    return (style.over_seeds(rows, "step", "kl_nats")[1] / [r["kl_nats"] for r in tables["bound"]]).max()


def figure(tables):
    drawn, axes = style.panels(3)
    free = style.select(tables["gaps"], game=FREE)
    for solver, colour in zip(style.distinct(free, "solver"), style.COLOURS, strict=False):
        for policy, line in (("last", "-"), ("average", ":")):
            rows = style.select(free, solver=solver, policy=policy)
            style.band(axes[0], rows, "step", "gap", label=f"{solver}: {policy}", color=colour, ls=line)
    regularised = style.select(tables["gaps"], game=REGULARISED, policy="last")
    for axis, rows, y in ((axes[1], regularised, "gap"), (axes[2], tables["distances"], "kl_nats")):
        for solver, colour in zip(style.distinct(rows, "solver"), style.COLOURS, strict=False):
            style.band(axis, style.select(rows, solver=solver), "step", y, label=solver, color=colour)
    (bound,) = axes[2].plot(*zip(*(tuple(r.values()) for r in tables["bound"]), strict=True), color="0.4", ls="--")
    for axis, title in zip(axes, (FREE, REGULARISED, "the same: distance"), strict=True):
        axis.set(xscale="log", yscale="log", title=title, xlabel="step")
    axes[0].set(ylabel="duality gap (win rate)", ylim=(1e-5, 2))
    axes[1].set(ylabel="duality gap of the last policy", ylim=(1e-7, 2))
    axes[2].set(ylabel="KL(Nash policy || last policy), nats", ylim=(1e-7, 1e3))
    axes[0].legend(fontsize=9)
    axes[1].legend(fontsize=9, loc="lower left")
    axes[2].legend([bound], ["bound of Nash-MD, falling step"], loc="upper right")
    return drawn
