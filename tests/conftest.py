"""Eight virtual devices, quick compiles and a compilation cache, set before jax is first used."""

import os
import tempfile

_FAST = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_multi_thread_eigen=false",
)


def _set_once() -> None:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
    if os.environ.get("ALIGNMENT_TEST_OPTIMISED") != "1":
        # Each flag once: xdist workers inherit the environment, and the cache key holds the whole string.
        flags = os.environ.get("XLA_FLAGS", "").split()
        os.environ["XLA_FLAGS"] = " ".join(flags + [f for f in _FAST if f not in flags])
    cache = os.path.join(tempfile.gettempdir(), f"alignment-test-cache-{os.getuid()}")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


_set_once()
