"""Stopping when the scheduler asks: SIGTERM is remembered, and the loop ends after a whole step."""

from __future__ import annotations

import signal

import jax
import numpy as np
from jax.experimental import multihost_utils


class StopOnSignal:
    """Remembers a SIGTERM until the loop asks; on several hosts all agree before any of them stops."""

    def __enter__(self) -> StopOnSignal:
        self._signalled = False
        self._old = signal.signal(signal.SIGTERM, self._remember)
        return self

    def _remember(self, *_):
        self._signalled = True

    def requested(self) -> bool:
        if jax.process_count() == 1:
            return self._signalled
        return bool(np.any(multihost_utils.process_allgather(np.array(self._signalled))))

    def __exit__(self, *_) -> None:
        signal.signal(signal.SIGTERM, self._old)
