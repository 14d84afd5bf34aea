"""Tokenised data sets on disk: made once, memory-mapped afterwards.

An entry is a folder of `.npy` files and one `meta.json`, named by a hash of all that decides its
content: the task and its arguments, the tokenizer, a user's file, the source of this package, and
the versions of those that it draws and tokenises with.
So nothing is ever out of date, and entries may be deleted at any time. The folder is
`$EDGEPRUNE_CACHE`, or `edgeprune_jax` in the user's cache folder.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from edgeprune_jax.tasks.alignment import Aligned
from edgeprune_jax.tasks.batch import Batch
from edgeprune_jax.tasks.jsonl import require_readable
from edgeprune_jax.tasks.make import make_task
from edgeprune_jax.tasks.splits import Split

VARIABLE = "EDGEPRUNE_CACHE"
META = "meta.json"


def load_task(name: str, tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Aligned:
    """What `make_task` makes, from the cache if it is there, and put there if it is not.

    The arrays are read-only. A broken entry is made anew; where the folder cannot be written,
    nothing is kept.
    """
    entry = root() / key(name, tokenizer, split=split, n=n, seed=seed)
    try:
        return _read(entry)
    except Exception:  # whatever numpy makes of what is there: it is made anew
        shutil.rmtree(entry, ignore_errors=True)
    made = make_task(name, tokenizer, split=split, n=n, seed=seed)
    try:
        _write(entry, made)
        return _read(entry)
    except OSError:
        return made


def root() -> Path:
    """The folder of all entries."""
    if given := os.environ.get(VARIABLE):
        return Path(given)
    caches = {
        "darwin": Path.home() / "Library" / "Caches",
        "win32": Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"),
    }
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches.get(sys.platform, usual) / "edgeprune_jax"


def key(name: str, tokenizer: Tokenizer, **arguments: str | int) -> str:
    """The name of an entry: equal for equal content, whoever asks."""
    parts = [_source(), tokenizer.to_str().encode(), name.encode(),
             json.dumps(arguments, sort_keys=True).encode()]  # fmt: skip
    digests = [hashlib.sha256(part).digest() for part in parts]
    if name.endswith(".jsonl"):
        require_readable(Path(name))
        with Path(name).open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    return hashlib.sha256(b"".join(digests)).hexdigest()[:32]


@lru_cache
def _source() -> bytes:
    """The code that makes data: another version of it has entries of its own."""
    ours = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    theirs = [f"{name} {version(name)}".encode() for name in ("numpy", "tokenizers")]
    return b"\0".join(ours + theirs)


def _write(entry: Path, made: Aligned) -> None:
    """Writes beside the entry and moves the whole folder into place."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=entry.parent))
    try:
        given = {k: v for k, v in vars(made.batch).items() if v is not None}
        given["rows"] = made.rows
        if made.batch.choices is not None:
            given["choices"] = made.batch.choices[:1]  # the same for all
        for name, array in given.items():
            np.save(draft / f"{name}.npy", array, allow_pickle=False)
        shapes = {name: [array.dtype.str, list(array.shape)] for name, array in given.items()}
        meta = {"arrays": shapes, "left_out": made.left_out, "example": made.example}
        (draft / META).write_text(json.dumps(meta))
        if not entry.exists():  # or another process was faster: its entry is as good
            draft.rename(entry)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _read(entry: Path) -> Aligned:
    meta = json.loads((entry / META).read_text())
    arrays = {}
    for name, shape in meta["arrays"].items():
        array = np.load(entry / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        if [array.dtype.str, list(array.shape)] != shape:
            raise ValueError(f"{entry / name} is not what was written")
        arrays[name] = array
    rows = arrays.pop("rows")
    if "choices" in arrays:
        arrays["choices"] = np.broadcast_to(
            arrays["choices"], (len(rows), len(arrays["choices"][0]))
        )
    return Aligned(Batch(**arrays), rows, int(meta["left_out"]), str(meta["example"]))
