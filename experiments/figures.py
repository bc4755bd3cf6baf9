"""Computes the figures of `notebooks/` again, without a notebook: a PNG and the numbers as CSV files.

    python -m experiments.figures gradient_weights
    python -m experiments.figures all --out=runs/figures

Names are those of the notebooks. `--small` takes the settings of the tests: seconds, and nothing to conclude from.
"""

import csv
import importlib
import pkgutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import app, flags

from experiments import reproductions

_OUT = flags.DEFINE_string("out", "runs/figures", "Directory of the PNG and CSV files.")
_SMALL = flags.DEFINE_bool("small", False, "The tests' settings: seconds, and nothing to conclude from.")

NAMES = tuple(sorted(m.name for m in pkgutil.iter_modules(reproductions.__path__) if m.name != "style"))


def module(name: str):
    """The reproduction of this name."""
    if name not in NAMES:
        raise ValueError(f"{name}: no such figure; there are {', '.join(NAMES)}, and all")
    return importlib.import_module(f"experiments.reproductions.{name}")


def write_csv(rows: Sequence[Mapping], path: Path) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def write(name: str, out: Path, *, small: bool = False) -> list[Path]:
    """Computes one figure and writes NAME.png and NAME_TABLE.csv for each table; returns the paths."""
    reproduction = module(name)
    out.mkdir(parents=True, exist_ok=True)
    tables = reproduction.tables(**((reproduction.SMALL or {}) if small else {}))
    paths = []
    for table, rows in tables.items():
        paths.append(out / f"{name}_{table}.csv")
        write_csv(rows, paths[-1])
    paths.append(out / f"{name}.png")
    reproduction.figure(tables).savefig(paths[-1])
    return paths


def main(argv):
    names = NAMES if argv[1:] == ["all"] else argv[1:]
    if not names:
        raise app.UsageError(f"name a figure, or all; there are {', '.join(NAMES)}")
    for name in names:
        module(name)  # a wrong name is said before the others are computed
    for name in names:
        started = time.monotonic()
        paths = write(name, Path(_OUT.value), small=_SMALL.value)
        print(f"{name}: {', '.join(map(str, paths))} ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    app.run(main)
