"""What comes from the disk is what was made, and nothing broken comes from it."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from edgeprune_jax.tasks import cache
from edgeprune_jax.tasks.cache import key, load_task, root
from edgeprune_jax.tasks.make import make_task

SETTINGS = {"split": "train", "n": 20, "seed": 1}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a.batch, b.batch)
    np.testing.assert_array_equal(a.rows, b.rows)
    assert (a.left_out, a.example) == (b.left_out, b.example)


def never(*_, **__):
    raise AssertionError("made again")


@pytest.mark.parametrize("task", ["ioi", "greater-than"])
def test_a_second_call_reads_what_the_first_made(task, smollm2, monkeypatch, folder):
    made = make_task(task, smollm2, **SETTINGS)
    same(load_task(task, smollm2, **SETTINGS), made)
    monkeypatch.setattr(cache, "make_task", never)
    read = load_task(task, smollm2, **SETTINGS)
    same(read, made)
    assert isinstance(read.batch.tokens, np.memmap) and not read.batch.tokens.flags.writeable
    assert len(list(folder.iterdir())) == 1  # and no draft beside it


def test_entries_are_named_by_all_that_decides_them(toy, smollm2, tmp_path, monkeypatch):
    file = tmp_path / "mine.jsonl"
    keys = [key("ioi", toy, **SETTINGS), key("ioi-t1", toy, **SETTINGS),
            key("ioi", smollm2, **SETTINGS), key("ioi", toy, **SETTINGS | {"seed": 2}),
            key("ioi", toy, **SETTINGS | {"split": "test"})]  # fmt: skip
    for content in ("a", "b"):
        file.write_text(content)
        keys.append(key(str(file), toy, **SETTINGS))
    monkeypatch.setattr(cache, "_source", lambda: b"another version of the tasks")
    keys.append(key("ioi", toy, **SETTINGS))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("harm", ["cut", "gone", "meta", "pickle", "shape", "empty", "list", "zip"])
def test_a_broken_entry_is_made_anew(harm, toy, folder):
    made = load_task("ioi", toy, **SETTINGS)
    tokens = np.array(made.batch.tokens)
    (entry,) = folder.iterdir()
    path = entry / "tokens.npy"
    if harm == "cut":
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[:-9])
    elif harm == "gone":
        path.unlink()
    elif harm in ("meta", "list"):
        (entry / "meta.json").write_text("{" if harm == "meta" else '{"arrays": []}')
    elif harm in ("empty", "zip"):
        path.unlink()
        path.write_bytes(b"" if harm == "empty" else b"PK\x05\x06" + bytes(18))
    else:
        path.unlink()
        hostile = np.array([{}]) if harm == "pickle" else np.zeros((2, 3), np.int32)
        np.save(path, hostile, allow_pickle=True)
    again = load_task("ioi", toy, **SETTINGS)
    np.testing.assert_array_equal(again.batch.tokens, tokens)
    assert sorted(p.name for p in folder.iterdir()) == [entry.name]


def test_a_folder_that_cannot_be_written_is_done_without(toy, folder):
    folder.write_text("in the way")
    assert len(load_task("ioi", toy, **SETTINGS).batch) == 20


def test_a_killed_writer_leaves_no_entry(toy, folder, monkeypatch):
    monkeypatch.setattr(Path, "rename", never)
    with pytest.raises(AssertionError):
        load_task("ioi", toy, **SETTINGS)
    assert not list(folder.iterdir())


def test_the_folder_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("EDGEPRUNE_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", str(tmp_path))
    assert root() == tmp_path / "edgeprune_jax"
