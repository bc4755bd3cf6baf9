"""What the commands of this folder share: their flags, a work directory, and errors that end in one line."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from alignment.training import checkpoints, mesh

CONFIG = config_flags.DEFINE_config_file("config", None, "The config file.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, metrics and figures go; the same one resumes.")


class RunStopped(RuntimeError):
    """The run cannot go on; the message says why and where the details are."""


def check_writable(workdir: Path) -> None:
    if ":/" in str(workdir):  # Path would make a local directory of that name
        raise RunStopped(f"--workdir={workdir}: must be a path of a file system; mount what is behind the URL")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".write-test-{os.getpid()}"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        raise RunStopped(f"--workdir={workdir}: cannot write there: {error.strerror or error}") from error


@contextlib.contextmanager
def as_command() -> Iterator[None]:
    """Around the work of every script that trains: libraries are quiet, and what can go wrong ends in one line."""
    absl_logging.set_verbosity(absl_logging.WARNING)  # orbax tells twenty lines about every checkpoint
    checkpoints.quieten_writers()
    try:
        yield
    except (ValueError, OSError, checkpoints.CheckpointError, RunStopped) as error:
        if os.environ.get("ALIGNMENT_TRACEBACK"):
            raise
        sys.exit(f"error: {error}")


def start(run_config: Callable[[ConfigDict, Path], Any]) -> None:
    """The command of a script whose work is `run(config, workdir)`."""

    def main(_) -> None:
        with as_command():
            if CONFIG.value.get("distributed"):
                mesh.join_processes()
            run_config(CONFIG.value, Path(WORKDIR.value))

    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
