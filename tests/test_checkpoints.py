"""A checkpoint holds all that a run needs, and one that is not of the run is refused in a line."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from edgeprune_jax import checkpoints
from edgeprune_jax.checkpoints import Policy
from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.pruning import init, prune
from edgeprune_jax.settings import PruneConfig

CONFIG = PruneConfig(steps=9, batch_size=2, node_gates=True, node_target=0.5, hard_share=0.5)
GRAPH = Graph(1, 2, 1)


@pytest.fixture(scope="module")
def case(toy_case, plain):
    made = toy_case(1, 2, 1, batch=5)
    return Loaded(made.model, made.params, made.graph, None, "toy", "none"), plain.as_batch(made)


@pytest.fixture(scope="module")
def run(case):
    return checkpoints.describe(*case, CONFIG)


@pytest.fixture
def saved(tmp_path, run):
    """The folder of a checkpoint of the first step."""
    with checkpoints.open_checkpoints(tmp_path) as manager:
        checkpoints.save(manager, state(), run)
    return tmp_path


def state(graph=GRAPH, config=CONFIG):
    return init(graph, config, examples=5)


def restored(folder, run, like=None):
    with checkpoints.open_checkpoints(folder) as manager:
        return checkpoints.restore(manager, state() if like is None else like, run)


def refused(folder, run, like=None):
    with pytest.raises(ValueError) as caught:
        restored(folder, run, like)
    said = str(caught.value)
    assert "\n" not in said and len(said) < 600 and str(folder) in said
    return said


def test_it_keeps_its_state_when_the_run_goes_on_and_the_newest_are_kept(case, run, tmp_path):
    (loaded, data), copies = case, {}
    steps = prune(loaded.model, loaded.params, data, None, CONFIG, state(loaded.graph))
    with checkpoints.open_checkpoints(tmp_path, Policy(keep=3)) as manager:
        for now, _ in steps:  # the next step takes these buffers at once
            copies[int(now.step)] = jax.tree.map(np.array, now)
            checkpoints.save(manager, now, run)
            if int(now.step) in (3, 5):
                found = checkpoints.restore(manager, state(loaded.graph), run)
                jax.tree.map(np.testing.assert_array_equal, found, copies[int(now.step)])
        manager.wait_until_finished()
        assert manager.all_steps() == [7, 8, 9]
    assert copies[9].failures.any()
    found = restored(tmp_path, run, state(loaded.graph))
    jax.tree.map(np.testing.assert_array_equal, found, copies[9])
    about = json.loads((tmp_path / "9" / "about" / "metadata").read_text())
    assert about["data"]["position"] == 18 and about["data"]["examples"] == 5
    assert about["provenance"]["versions"]["jax"] and about["settings"]["steps"] == 9


def test_nothing_saved_is_the_start(run, tmp_path):
    first = state()
    assert restored(tmp_path, run, first) is first


@pytest.mark.parametrize("name", ["model", "data", "settings"])
def test_that_of_another_run_is_refused_by_what_differs(name, run, saved):
    other = run | {name: run[name] | {"digest": "other", "seed": 1}}
    assert f"it differs in {name} (" in refused(saved, other)


@pytest.mark.parametrize(
    "graph, config", [(Graph(2, 2, 1), CONFIG), (GRAPH, replace(CONFIG, node_target=None))]
)
def test_arrays_of_other_shapes_or_number_are_refused(graph, config, run, saved):
    assert "its arrays have other shapes or types" in refused(saved, run, state(graph, config))


def edited(folder, **entries):
    path = folder / "0" / "about" / "metadata"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize(
    "entries, words",
    [
        ({"format": 2}, "it differs in format"),
        ({"step": 3}, "it differs in step"),
        ({"step": "0"}, "it differs in step"),
        ({"data": None}, "it differs in data"),
        ({"settings": [1e999]}, "it differs in settings"),
        ({"provenance": 7}, "provenance must be an object: got int"),
        ({"provenance": {"versions": []}}, "versions must be an object: got an array"),
        ({"provenance": {"date": "\ud800"}}, "valid Unicode"),
    ],
)
def test_what_it_says_of_itself_is_checked(entries, words, run, saved):
    edited(saved, **entries)
    assert words in refused(saved, run)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\x00", b"[" * 10**5, b"1" * 10**5, None])
def test_what_is_no_json_is_refused(content, run, saved):
    path = saved / "0" / "about" / "metadata"
    path.unlink() if content is None else path.write_bytes(content)
    refused(saved, run)


def test_a_folder_whose_index_is_endlessly_nested_is_refused(run, saved):
    (saved / "0" / "_CHECKPOINT_METADATA").write_text("[" * 10**5)
    refused(saved, run)


def test_a_state_of_another_step_is_refused(run, saved):
    (saved / "0").rename(saved / "4")
    for name, step in (("it differs in data, step", 4), ("its state is of step 0", 4)):
        assert name in refused(saved, run)
        path = saved / "4" / "about" / "metadata"
        about = json.loads(path.read_text())
        about |= {"step": step, "data": about["data"] | {"position": 2 * step}}
        path.write_text(json.dumps(about))


def test_a_step_beyond_the_last_is_refused(run, tmp_path):
    with checkpoints.open_checkpoints(tmp_path) as manager:
        checkpoints.save(manager, state().replace(step=np.int32(10)), run)
    assert "step must be at most 9: got 10" in refused(tmp_path, run)


def test_numbers_that_are_not_finite_are_refused(run, tmp_path):
    start = state()
    bad = Edges(start.trainable.edges.values.at[3].set(np.nan), GRAPH)
    with checkpoints.open_checkpoints(tmp_path) as manager:
        checkpoints.save(manager, start.replace(trainable=start.trainable._replace(edges=bad)), run)
    assert "it holds numbers that are not finite" in refused(tmp_path, run)


def test_a_policy_counts_from_one():
    for name in ("every", "keep"):
        with pytest.raises(ValueError, match=f"checkpoint.{name} must be at least 1: got 0"):
            Policy(**{name: 0})
