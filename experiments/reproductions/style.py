"""How the reproduced figures look: one palette, one size, one way to draw several seeds."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

# Okabe and Ito's palette: told apart by readers of every kind of colour vision. Yellow is left out on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = {
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 13,  # 10 inches shown at half width leaves 6.5 points
    "legend.fontsize": 10,
    "lines.linewidth": 2,
    "savefig.dpi": 110,
    "figure.dpi": 80,
}


def panels(columns: int = 1, rows: int = 1, **shared):
    """A figure and its axes, as `plt.subplots` gives them; from here on matplotlib draws in the common style."""
    plt.rcParams.update(STYLE)  # lines and legends read it when they are drawn, after this function
    width = 5.0 * columns if columns > 1 else 6.5
    figure, axes = plt.subplots(rows, columns, figsize=(width, 4.0 * rows), layout="constrained", **shared)
    plt.close(figure)  # a notebook shows the figure that its cell returns, and not a second one
    return figure, axes


def select(rows: Sequence[Mapping], **values) -> list[Mapping]:
    """The rows that have these values in these columns."""
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def distinct(rows: Sequence[Mapping], column: str) -> list:
    """The values of a column in order of appearance."""
    return list(dict.fromkeys(row[column] for row in rows))


def over_seeds(rows: Sequence[Mapping], x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """The sorted values of x, and y by seed and x: f[X] and f[S, X]. Each seed must have each x once."""
    grid, seeds = sorted(set(distinct(rows, x))), distinct(rows, "seed")
    by_place = {(row["seed"], row[x]): row[y] for row in rows}
    if len(by_place) != len(rows) or len(rows) != len(grid) * len(seeds):
        raise ValueError(f"{len(rows)} rows are not {len(seeds)} seeds by {len(grid)} values of {x}, each once")
    return np.array(grid), np.array([[by_place[seed, value] for value in grid] for seed in seeds])


def band(axis, rows: Sequence[Mapping], x: str, y: str, **line) -> None:
    """Mean over the seeds with the range of all of them behind it."""
    grid, values = over_seeds(rows, x, y)
    (drawn,) = axis.plot(grid, values.mean(0), **line)
    axis.fill_between(grid, values.min(0), values.max(0), color=drawn.get_color(), alpha=0.2, linewidth=0)


def curves(rows: Sequence[Mapping], x: str, columns: Mapping[str, str]):
    """A panel for each of these columns {name: what its axis is called}, a band for each method; (figure, axes)."""
    figure, axes = panels(len(columns))
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        for method in distinct(rows, "method"):
            band(axis, select(rows, method=method), x, column, label=method)
        axis.set(xlabel=x, ylabel=label)
    return figure, axes
