"""Eight virtual devices, quick compiles and a compilation cache, set before jax is first used."""

import gc
import importlib.metadata
import itertools
import os
import tempfile

import hypothesis
import pytest

_FAST = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_multi_thread_eigen=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # A third less time for a test that compiles and runs a whole step; a version without the flag ends the process.
    _FAST += ("--xla_cpu_use_fusion_emitters=false",)


def _set_once() -> None:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
    if os.environ.get("ALIGNMENT_TEST_OPTIMISED") != "1":
        # Each flag once: xdist workers inherit the environment, and the cache key holds the whole string.
        flags = os.environ.get("XLA_FLAGS", "").split()
        os.environ["XLA_FLAGS"] = " ".join(flags + [f for f in _FAST if f not in flags])
    cache = os.path.join(tempfile.gettempdir(), f"alignment-test-cache-{os.getuid()}")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
    # Not every small program: jaxlib has crashed while writing one, in a process that had written thousands.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


_set_once()

# The same examples in every run, so that a change is judged by what it changed; ALIGNMENT_TEST_RANDOM=1 looks for new
# ones. No deadline: the first example of a test compiles.
hypothesis.settings.register_profile(
    "alignment", derandomize=os.environ.get("ALIGNMENT_TEST_RANDOM") != "1", deadline=None
)
hypothesis.settings.load_profile("alignment")


def pytest_collection_modifyitems(items):
    """The contract tests of a kernel run next to each other, because they share its compiled programs."""

    def kernel(item):
        row = item.callspec.params.get("row") if hasattr(item, "callspec") else None
        return getattr(row, "name", None)

    by_kernel = iter(sorted((item for item in items if kernel(item)), key=kernel))
    items[:] = [next(by_kernel) if kernel(item) else item for item in items]


_TESTS = itertools.count()


@pytest.fixture(autouse=True)
def _memory_maps_are_given_back():
    """Each compiled program holds three of the 65,530 memory maps of a process; Linux kills one that asks for more."""
    yield
    maps_of_this_process = "/proc/self/maps"
    if next(_TESTS) % 20 or not os.path.exists(maps_of_this_process):  # reading the list takes milliseconds
        return
    with open(maps_of_this_process) as maps:
        if sum(1 for _ in maps) > 12_000:
            import jax

            jax.clear_caches()
            gc.collect()
