"""Checkpoints: from mesh to mesh, which are kept, and one clear error for each that cannot be used."""

import functools

import jax
import numpy as np
import optax
import pytest
import tiny_runs
import tiny_steps

from alignment.training import checkpoints, mesh, state

DESCRIPTION = {"model": {"hidden_size": 16}, "objective": {"terms": {"dpo": {"beta": 0.5}}, "seed": 0}}


@functools.cache
def a_state():
    # A width at which a moment fills a file of its own, so that there is something to truncate.
    params = jax.jit(tiny_steps.MODEL.init)(jax.random.key(3))
    made = state.create(params, optax.adam(1e-3), {}, jax.random.key(4))
    return made.replace(step=jax.numpy.asarray(7, jax.numpy.int32))


def placed(shape, devices=8):
    made = mesh.make_mesh(shape, jax.devices()[:devices])
    shardings = mesh.parameter_sharding(made, jax.eval_shape(lambda x: x, a_state()))
    return jax.device_put(a_state(), shardings), checkpoints.abstract(jax.eval_shape(lambda x: x, a_state()), shardings)


def written(directory, *steps, **kwargs):
    manager = checkpoints.open_manager(directory, keep_last=kwargs.pop("keep_last", 5), **kwargs)
    for step in steps:
        checkpoints.save(manager, step, a_state(), None, DESCRIPTION)
        checkpoints.wait(manager)
    return manager


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (({"data": 8}, 8), ({"data": 2, "fsdp": 2, "tensor": 2}, 8)),
        (({"data": 1, "fsdp": 4, "tensor": 2}, 8), ({"data": 1}, 1)),
        (({"data": 1}, 1), ({"data": 1, "fsdp": 8}, 8)),
    ],
)
def test_what_one_mesh_writes_another_reads(tmp_path, one, other):
    manager = checkpoints.open_manager(tmp_path)
    saved, _ = placed(*one)
    checkpoints.save(manager, 7, saved, None, DESCRIPTION)
    checkpoints.wait(manager)
    _, abstract = placed(*other)
    got = checkpoints.restore(manager, 7, abstract, None, DESCRIPTION)
    assert tiny_runs.digest(got) == tiny_runs.digest(a_state())
    for x, wanted in zip(jax.tree.leaves(got), jax.tree.leaves(abstract), strict=True):
        assert x.sharding.is_equivalent_to(wanted.sharding, x.ndim)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": {"hidden_size": 32}}, ["another model", "hidden_size is 16 there and 32 here"]),
        ({"objective": {"terms": {"ipo": {}}, "seed": 0}}, ["another run", "terms", "dpo", "ipo"]),
        ({"objective": {"terms": {"dpo": {"beta": 0.5}}, "seed": 1}}, ["another run", "seed is 0 there and 1 here"]),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, change, words):
    manager = written(tmp_path, 7)
    with pytest.raises(checkpoints.CheckpointError) as error:
        checkpoints.restore(manager, 7, placed({"data": 1}, 1)[1], None, DESCRIPTION | change)
    assert all(w in str(error.value) for w in ["step 7", str(tmp_path), *words]), error.value


@pytest.mark.parametrize("how", ["halved", "emptied", "flipped", "removed"])
def test_a_damaged_checkpoint_is_named(tmp_path, how):
    manager = written(tmp_path, 5, 7)
    manager.close()
    data = [p for p in (tmp_path / "7" / "state").rglob("*") if p.is_file() and p.parent.name == "d"]
    assert data
    for path in data:
        content = path.read_bytes()
        if how == "removed":
            path.unlink()
        elif how == "flipped":
            path.write_bytes(content[:100] + bytes(255 - b for b in content[100:-100]) + content[-100:])
        else:
            path.write_bytes(content[: len(content) // 2 if how == "halved" else 0])
    manager = checkpoints.open_manager(tmp_path, keep_last=5)
    abstract = placed({"data": 1}, 1)[1]
    with pytest.raises(checkpoints.CheckpointError) as error:
        checkpoints.restore(manager, 7, abstract, None, DESCRIPTION)
    assert "step 7" in str(error.value) and str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    # The one before it is still good, as the message says.
    assert tiny_runs.digest(checkpoints.restore(manager, 5, abstract, None, DESCRIPTION)) == tiny_runs.digest(a_state())


def test_a_damaged_description_is_named(tmp_path):
    written(tmp_path, 7).close()
    (tmp_path / "7" / "description" / "metadata").write_text('{"model": ')
    with pytest.raises(checkpoints.CheckpointError, match="step 7"):
        checkpoints.read_description(checkpoints.open_manager(tmp_path), 7)


def test_what_a_kill_left_half_written_is_passed_over(tmp_path):
    written(tmp_path, 5).close()
    half = tmp_path / "9.orbax-checkpoint-tmp-0"
    (half / "state").mkdir(parents=True)
    assert checkpoints.open_manager(tmp_path).latest_step() == 5


@pytest.mark.parametrize(
    ("mode", "values", "kept"),
    [
        ("max", [0.2, 0.9, 0.4, 0.3], [2, 4]),
        ("min", [0.2, 0.1, 0.4, 0.3], [2, 4]),
        ("max", [0.1, 0.2, 0.3, 0.4], [4]),
        ("max", [0.9, 0.1, None, 0.3], [1, 4]),  # None: saved on SIGTERM, not evaluated
    ],
)
def test_the_best_and_the_newest_are_kept(tmp_path, mode, values, kept):
    with checkpoints.open_manager(tmp_path, best_metric="accuracy", best_mode=mode) as manager:
        for step, value in enumerate(values, 1):
            metrics = None if value is None else {"accuracy": value}
            checkpoints.save(manager, step, {"x": np.ones(2)}, None, DESCRIPTION, metrics)
            checkpoints.wait(manager)
            assert manager.latest_step() == step
    with checkpoints.open_manager(tmp_path, best_metric="accuracy", best_mode=mode) as manager:
        assert set(kept) <= set(manager.all_steps())
        assert len(manager.all_steps()) <= len(kept) + values.count(None)


def test_keep_last_keeps_that_many(tmp_path):
    assert sorted(written(tmp_path, 1, 2, 3, 4, keep_last=2).all_steps()) == [3, 4]


def test_parameters_alone_can_be_read(tmp_path):
    written(tmp_path, 5, 7).close()
    abstract = placed({"data": 8})[1].params
    got = checkpoints.restore_params(tmp_path, abstract, DESCRIPTION["model"])
    assert tiny_runs.digest(got) == tiny_runs.digest(a_state().params)
    with pytest.raises(checkpoints.CheckpointError, match="hidden_size is 16 there and 4 here"):
        checkpoints.restore_params(tmp_path, abstract, {"hidden_size": 4})
    with pytest.raises(checkpoints.CheckpointError, match="no checkpoints"):
        checkpoints.restore_params(tmp_path / "nothing", abstract, DESCRIPTION["model"])


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config\.checkpoints\.best_mode"):
        checkpoints.open_manager(tmp_path, best_metric="x", best_mode="best")


def test_no_pickle_anywhere(tmp_path):
    written(tmp_path, 7).close()
    for path in tmp_path.rglob("*"):
        assert path.suffix not in (".pkl", ".pickle")
        if path.is_file():
            assert not path.read_bytes().startswith(b"\x80\x04"), path
