"""The runner: whatever a reward does, the batch comes back complete, in order, with every failure counted."""

import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from alignment.rewards import runner as runner_module
from alignment.rewards import tasks, worker
from alignment.rewards.runner import RewardReport, RewardRunner

MODULE = '''
import os, signal, subprocess, sys, time
import numpy as np

def act(prompt, completion, record):
    """Does what the completion says."""
    if completion == "hang":
        while True: pass
    if completion == "hang in native code":
        import re
        re.fullmatch("(a+)+b", "a" * 60)
    if completion == "hang with a child":
        child = subprocess.Popen(["sleep", "600"])
        open(record["file"], "w").write(str(child.pid))
        time.sleep(600)
    if completion == "raise": raise RuntimeError("no such judge\\nat all")
    if completion == "raise again": raise KeyError("answer")
    if completion == "recurse": return act(prompt, completion, record)
    if completion == "exit": sys.exit("bye")
    if completion == "none": return None
    if completion == "nan": return float("nan")
    if completion == "numpy nan": return np.float32("nan")
    if completion == "infinity": return float("inf")
    if completion == "too large": return 10 ** 400
    if completion == "too large for float32": return 1e39
    if completion == "string": return "1.0"
    if completion == "list": return [1.0]
    if completion == "slow": time.sleep(0.3); return 3.0
    if completion == "slow process": time.sleep(0.3); return os.getpid()
    if completion == "interrupt the run": os.kill(os.getppid(), signal.SIGINT); time.sleep(0.3); return 3.0
    if completion == "true": return True
    if completion == "numpy": return np.float32(0.5)
    if completion == "0-d": return np.array(0.25)
    if completion == "crash": os._exit(7)
    if completion == "signal": os.kill(os.getpid(), signal.SIGSEGV)
    if completion == "process": return os.getpid()
    if completion == "environment": return float(os.environ["JAX_PLATFORMS"] == "cpu")
    return float(completion)

def length(prompt, completion, record): return len(completion)
def two_arguments(prompt, completion): return 0.0
class Judge:
    def __init__(self, scale): self.scale = scale
    def __call__(self, prompt, completion, record): return self.scale * len(completion)
NUMBER = 3
'''
UNPROTECTED = {
    "raise": "exception",
    "recurse": "exception",
    "exit": "exception",
    "not a number": "exception",
    "none": "none",
    "nan": "not_finite",
    "numpy nan": "not_finite",
    "infinity": "not_finite",
    "too large": "not_finite",
    "too large for float32": "not_finite",
    "string": "not_a_number",
    "list": "not_a_number",
}
FAILURES = UNPROTECTED | {
    "hang": "time_out",
    "hang in native code": "time_out",
    "crash": "died",
    "signal": "died",
}


@pytest.fixture
def reward_module(tmp_path, monkeypatch):
    (tmp_path / "rv_rewards.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "rv_rewards"
    sys.modules.pop("rv_rewards", None)


def run(runner, completions, records=None):
    return runner(["p"] * len(completions), completions, records or [{}] * len(completions))


def children():
    """Processes of this one, zombies included."""
    out = subprocess.run(["ps", "-o", "pid=,stat=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return [line for line in out.stdout.splitlines() if "alignment.rewards" in line or " Z" in line]


def test_every_failure_is_counted_and_the_other_results_stand(reward_module):
    completions = [text for name in FAILURES for text in (name, str(len(name)))]
    with RewardRunner(f"{reward_module}:act", workers=2, time_limit=5.0, on_failure=-2.0) as runner:
        result = run(runner, completions)
        again = run(runner, ["1", "slow"])
    expected = [float(text) if text.isdigit() else -2.0 for text in completions]
    assert result.rewards.tolist() == expected and result.rewards.dtype == np.float32
    assert result.failed.tolist() == [not text.isdigit() for text in completions]
    kinds = list(FAILURES.values())
    assert result.report.counts == {kind: kinds.count(kind) for kind in set(kinds)}
    assert result.report.calls == len(completions) and result.report.failed == len(FAILURES)
    assert again.rewards.tolist() == [1.0, 3.0] and not again.failed.any() and again.report.counts == {}
    assert children() == []


@pytest.mark.parametrize("completion", UNPROTECTED)
def test_failures_in_this_process_are_counted_too(reward_module, completion):
    with RewardRunner(f"{reward_module}:act", on_failure=0.5) as runner:
        result = run(runner, ["1", completion, "2"])
    assert result.rewards.tolist() == [1.0, 0.5, 2.0] and result.failed.tolist() == [False, True, False]
    assert result.report.counts == {UNPROTECTED[completion]: 1}


@pytest.mark.parametrize("workers", [0, 1])
def test_slow_rewards_booleans_and_numpy_scalars_are_fine(reward_module, workers):
    with RewardRunner(f"{reward_module}:act", workers=workers, time_limit=30) as runner:
        result = run(runner, ["slow", "true", "numpy", "0-d"])
    assert result.rewards.tolist() == [3.0, 1.0, 0.5, 0.25] and result.report.counts == {}


def test_the_report_is_one_line_with_the_first_message_of_each_kind(reward_module):
    with RewardRunner(f"{reward_module}:act") as runner:
        report = run(runner, ["1", "raise", "raise again", "none", "string"]).report
    line = str(report)
    assert "\n" not in line and line.startswith("rewards: 5 calls in ") and "4 failed" in line
    assert "exception 2: act, completion 1: RuntimeError: no such judge at all" in line
    assert "none 1: act, completion 3: returned None" in line and "returned str '1.0'" in line and "nan" not in line
    assert report.metrics()["reward_failures/exception"] == 0.4 and set(report.metrics()) == {
        f"reward_failures/{kind}" for kind in worker.KINDS
    }
    assert str(RewardReport(3, {}, {}, 0.0)) == "rewards: 3 calls in 0.0 s, 0 failed"


def test_reports_add_up_and_keep_the_earlier_message():
    a = RewardReport(2, {"none": 1}, {"none": "first"}, 1.0)
    b = RewardReport(3, {"none": 2, "exception": 1}, {"none": "second", "exception": "x"}, 2.0)
    assert a + b == RewardReport(5, {"exception": 1, "none": 3}, {"none": "first", "exception": "x"}, 3.0)


def test_long_messages_are_cut():
    def fail(prompt, completion, record):
        raise ValueError("x" * 10**6)

    message = run(RewardRunner(fail), ["a"]).report.first["exception"]
    assert len(message) < 400 and message.endswith("...")


@pytest.mark.parametrize("workers", [0, 2])
def test_rewards_are_weighted_sums_and_order_is_kept(reward_module, workers):
    functions = [f"{reward_module}:act", f"{reward_module}:length"]
    completions = [str(10**i) for i in range(6)] + ["none"]
    with RewardRunner(functions, [2.0, -1.0], workers=workers, on_failure=5.0, time_limit=30) as runner:
        result = run(runner, completions)
    lengths = [len(text) for text in completions]
    np.testing.assert_array_equal(result.by_function[:, 0], [1, 10, 100, 1000, 10**4, 10**5, 5])
    np.testing.assert_array_equal(result.by_function[:, 1], lengths)
    np.testing.assert_array_equal(result.rewards, 2 * result.by_function[:, 0] - lengths)
    assert result.failed.tolist() == [False] * 6 + [True] and result.report.calls == 14


def test_slow_calls_run_side_by_side(reward_module):
    with RewardRunner(f"{reward_module}:act", workers=4, time_limit=30) as runner:
        result = run(runner, ["slow process"] * 4)
    # Nobody takes a second call while another worker is free.
    assert len(set(result.rewards.tolist())) == 4


def test_a_time_out_kills_what_the_reward_started(reward_module, tmp_path):
    file = tmp_path / "pid"
    with RewardRunner(f"{reward_module}:act", workers=1, time_limit=2.0) as runner:
        result = run(runner, ["hang with a child"], [{"file": str(file)}])
    assert result.report.counts == {"time_out": 1}
    # A killed process may still be leaving the kernel; a zombie is left to whoever adopts orphans here.
    ps = ["ps", "-o", "stat=", "-p", file.read_text()]
    deadline = time.monotonic() + 60
    while (state := subprocess.run(ps, capture_output=True, text=True).stdout.strip()[:1]) not in ("", "Z"):
        assert time.monotonic() < deadline, f"the child still runs: {state}"
        time.sleep(0.05)


def test_workers_killed_between_batches_are_replaced(reward_module):
    with RewardRunner(f"{reward_module}:act", workers=2, time_limit=30) as runner:
        pids = {one.process.pid for one in runner._workers}
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:  # dead before the batch starts, and left for the runner to find
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        result = run(runner, ["process"] * 8)
        assert result.report.counts == {} and not pids & set(result.rewards.astype(int).tolist())
    assert children() == []


def test_a_batch_without_any_worker_is_counted_as_died(reward_module, monkeypatch):
    with RewardRunner(f"{reward_module}:act", workers=1, time_limit=30) as runner:
        monkeypatch.setattr(runner_module, "_MAIN", "raise SystemExit(1)")
        result = run(runner, ["1", "crash", "2", "3"])
        assert result.rewards.tolist() == [1, 0, 0, 0] and result.report.counts == {"died": 3}


@pytest.fixture
def interruptible():
    """A shell's background job ignores SIGINT; and one that arrives in a callback of the collector is lost."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()
    yield
    gc.enable()
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_batch_leaves_nothing_for_the_next_one(reward_module, interruptible):
    with RewardRunner(f"{reward_module}:act", workers=2, time_limit=30) as runner:
        with pytest.raises(KeyboardInterrupt):
            run(runner, ["interrupt the run"])
        # The other worker is done with these before the answer to the interrupted one would arrive.
        assert run(runner, ["1", "2", "slow"]).rewards.tolist() == [1, 2, 3]
    assert children() == []


def test_records_that_cannot_be_sent_are_counted(reward_module):
    with RewardRunner(f"{reward_module}:act", workers=1, time_limit=30) as runner:
        result = run(runner, ["1", "2", "3"], [{}, {"lock": threading.Lock()}, {}])
        assert result.rewards.tolist() == [1, 0, 3] and "cannot be sent" in result.report.first["exception"]
        only = run(runner, ["2"], [{"lock": threading.Lock()}])
        assert only.report.counts == {"exception": 1}


def test_workers_see_the_cpu_unless_told_otherwise(reward_module):
    with RewardRunner(f"{reward_module}:act", workers=1) as runner:
        assert run(runner, ["environment"]).rewards.tolist() == [1.0]
    with RewardRunner(f"{reward_module}:act", workers=1, environment={"JAX_PLATFORMS": "tpu"}) as runner:
        assert run(runner, ["environment"]).rewards.tolist() == [0.0]


def test_an_empty_batch_and_a_batch_of_different_lengths(reward_module):
    with RewardRunner(f"{reward_module}:act", workers=1) as runner:
        assert run(runner, []).rewards.shape == (0,)
        with pytest.raises(ValueError, match="1 prompts, 2 completions, 1 records"):
            runner(["p"], ["a", "b"], [{}])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_package.rewards:f", "cannot import 'no_such_package.rewards': ModuleNotFoundError"),
        ("rv_broken:f", "cannot import 'rv_broken': ZeroDivisionError"),
        ("rv_exits:f", "cannot import 'rv_exits': SystemExit"),
        ("rv_rewards:acts", "has no 'acts'; it has: act, length"),
        ("rv_rewards:NUMBER", "must be a function, got int"),
        ("rv_rewards:Judge", "is a class"),
        ("rv_rewards:two_arguments", r"two_arguments\(prompt, completion\) must accept \(prompt, completion, record\)"),
        ("rv_rewards.act", "must be written package.module:function"),
        (":act", "must be written package.module:function"),
    ],
)
def test_a_reward_that_cannot_be_imported_is_said_at_once(reward_module, tmp_path, workers, path, message):
    (tmp_path / "rv_broken.py").write_text("1 / 0")
    (tmp_path / "rv_exits.py").write_text("raise SystemExit(3)")
    with pytest.raises(ValueError, match=message):
        RewardRunner(path, workers=workers)
    assert children() == []


def test_callables_reach_workers_by_module_by_file_or_pickled(reward_module, tmp_path):
    import rv_rewards

    # As a config file is executed: under a name that no import finds.
    (tmp_path / "config.py").write_text("def reward(prompt, completion, record):\n    return 7.0\n")
    config = worker._from_file(str(tmp_path / "config.py"))
    del sys.modules[config.__name__]
    functions = [rv_rewards.length, config.reward, rv_rewards.Judge(3), functools.partial(rv_rewards.Judge(0.5))]
    with RewardRunner(functions, workers=1) as runner:
        assert runner.names == ["length", "reward", "Judge", "Judge"]
        assert run(runner, ["four"]).by_function.tolist() == [[4.0, 7.0, 12.0, 2.0]]


def test_functions_without_a_name_need_this_process():
    with pytest.raises(ValueError, match=r"cannot be sent to worker processes.*workers=0"):
        RewardRunner(lambda prompt, completion, record: 1.0, workers=1)
    assert run(RewardRunner(lambda prompt, completion, record: 1.0), ["x"]).rewards.tolist() == [1.0]


def test_a_script_keeps_its_functions_and_is_not_run_again_and_leaves_no_process(tmp_path):
    (tmp_path / "script.py").write_text(
        "from alignment.rewards.runner import RewardRunner\n"
        "def reward(prompt, completion, record):\n    return len(completion)\n"
        "if __name__ == '__main__':\n"
        "    runner = RewardRunner(reward, workers=2)\n"
        "    print(runner(['p'], ['four'], [{}]).rewards.tolist(), *[one.process.pid for one in runner._workers])\n"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    out = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert out.returncode == 0 and out.stderr == "" and out.stdout.startswith("[4.0] "), out
    for pid in out.stdout.split()[1:]:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_closing_twice_using_afterwards_and_forgetting_to_close(reward_module):
    runner = RewardRunner(f"{reward_module}:act", workers=1)
    runner.close()
    runner.close()
    with pytest.raises(ValueError, match="closed"):
        run(runner, ["1"])
    runner = RewardRunner(f"{reward_module}:act", workers=1)
    gone = weakref.ref(runner)
    del runner
    gc.collect()
    assert gone() is None and children() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"functions": []}, "at least one reward"),
        ({"weights": [1.0, 2.0]}, "1 reward functions with 2 weights"),
        ({"weights": [float("nan")]}, "must be finite"),
        ({"on_failure": float("nan")}, "must be finite"),
        ({"workers": -1}, r"workers must be an integer in \[0, inf\)"),
        ({"workers": 1.5}, r"workers must be an integer in \[0, inf\)"),
        ({"time_limit": 0.0}, r"time_limit must lie in \(0, inf\)"),
        ({"time_limit": float("inf")}, r"time_limit must lie in \(0, inf\)"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        RewardRunner(**({"functions": tasks.reward} | arguments))


def test_the_worker_imports_no_heavy_package():
    heavy, ours = ["jax", "flax", "tensorflow", "pyarrow"], "alignment.rewards.runner, alignment.rewards.tasks"
    code = f"import sys, {ours}; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
