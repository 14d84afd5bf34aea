"""The whole input domain of a compiled program, as a `Batch`.

The right answers are those of the program's own weights, which `compile.py` has checked against
the RASP interpreter on this very domain.

Axes: N sequences, T tokens (BOS first, padded on the right), A scored positions, V outputs.
"""

import itertools
import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from edgeprune_jax.models import tracr
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.stream import plain_forward
from edgeprune_jax.tasks.batch import Batch, take

MAX_ROWS = 2**20
MAX_LENGTH = 128  # symbols of a prompt: of two symbols, 20 make too many prompts already
MAX_PAIRS = 20_000
_AT_ONCE = 4096  # rows per forward pass
_forward = jax.jit(plain_forward, static_argnums=0)


class Domain(NamedTuple):
    """Which prompts a program is judged on: all of `shortest` to `longest` symbols."""

    shortest: int
    longest: int
    bos: bool  # whether the output at BOS counts


def read_domain(folder: str | Path) -> Domain:
    """The domain in a compiled program's `config.json`."""
    path = Path(folder) / "config.json"
    entries = json.loads(path.read_text("utf-8")).get("domain")
    kinds = {"shortest": int, "longest": int, "bos": bool}
    if not isinstance(entries, dict) or {key: type(entries[key]) for key in entries} != kinds:
        raise ValueError(f"{path}: domain must have integers shortest, longest and a boolean bos")
    return Domain(**entries)


def size(domain: Domain, *, symbols: int, max_seq_len: int) -> int:
    """The number of prompts. Raises `ValueError` for a domain that cannot be enumerated."""
    shortest, longest, _ = domain
    if max_seq_len > MAX_LENGTH:
        raise ValueError(f"max_seq_len must be at most {MAX_LENGTH}: got {max_seq_len}")
    if not 1 <= shortest <= longest <= max_seq_len:
        raise ValueError(
            f"1 <= shortest <= longest <= max_seq_len = {max_seq_len} must hold: "
            f"got {shortest} and {longest}"
        )
    count = sum(symbols**length for length in range(shortest, longest + 1))
    if not 1 <= count <= MAX_ROWS:
        raise ValueError(f"a domain must have 1 to {MAX_ROWS} prompts: got {count}")
    return count


def prompts(config: tracr.Config, domain: Domain) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and validity, each N T, of every prompt of the domain, shortest first."""
    size(domain, symbols=len(config.symbols), max_seq_len=config.max_seq_len)
    rows = [
        (config.bos, *chosen, *[config.pad] * (domain.longest - length))
        for length in range(domain.shortest, domain.longest + 1)
        for chosen in itertools.product(config.symbols, repeat=length)
    ]
    tokens = np.array(rows, np.int32)
    return tokens, tokens != config.pad


def logits(
    loaded: Loaded, tokens: np.ndarray, valid: np.ndarray, positions: np.ndarray
) -> np.ndarray:
    """Outputs of the intact program, N A V, a few thousand rows at a time."""
    out = []
    for start in range(0, len(tokens), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        out.append(np.asarray(_forward(
            loaded.model, loaded.params, tokens[rows], valid=valid[rows], positions=positions[rows]
        )))  # fmt: skip
    return np.concatenate(out)


def full_domain(folder: str | Path) -> Batch:
    """Every prompt of a compiled program's domain, once.

    Each corrupted token is another symbol than the clean one (of one-symbol programs, the same).
    `targets` are classes, or -1 where the output is a number: the right one is then what the
    intact program says. Not scored are padding, BOS if it does not count, and positions where
    the program defines no output: RASP says None there, and the weights no class.
    """
    config, domain, loaded = tracr.read_config(folder), read_domain(folder), tracr.load(folder)
    tokens, valid = prompts(config, domain)
    first = 0 if domain.bos else 1
    positions = np.broadcast_to(
        np.arange(first, tokens.shape[1], dtype=np.int32), valid[:, first:].shape
    ).copy()
    scored = valid[:, first:]
    targets = np.full(positions.shape, -1, np.int32)
    if config.outputs is not None:
        outputs = logits(loaded, tokens, valid, positions)
        scored = scored & (outputs.max(-1) > 0.5)  # the logit of a class is 1, else 0
        targets = np.where(scored, outputs.argmax(-1), -1).astype(np.int32)
    return Batch(
        tokens, _replaced(config, tokens), valid, positions, scored.astype(np.float32), targets,
        np.full(positions.shape, -1, np.int32),
    )  # fmt: skip


def count_pairs(batch: Batch) -> int:
    """The number of ordered pairs of different prompts of equal length."""
    sizes = np.unique(batch.valid.sum(-1), return_counts=True)[1]
    return int((sizes * (sizes - 1)).sum())


def every_pair(batch: Batch, *, most: int = MAX_PAIRS, seed: int = 0) -> Batch:
    """Ordered pairs of different prompts of equal length, the second as the corrupted one.

    All of them, or where there are more than `most`, so many drawn without replacement. Raises
    `ValueError` where there is none.
    """
    sizes = np.unique(batch.valid.sum(-1), return_counts=True)[1]
    ends = np.cumsum(sizes * (sizes - 1))
    if ends[-1] < 1:
        raise ValueError(f"a domain must have two prompts of equal length: got {len(batch)} in all")
    if ends[-1] <= most:
        chosen = np.arange(ends[-1])
    else:
        chosen = np.sort(np.random.default_rng(seed).choice(ends[-1], most, replace=False))
    group = np.searchsorted(ends, chosen, side="right")
    others = sizes[group] - 1
    first, second = np.divmod(chosen - (ends - sizes * (sizes - 1))[group], others)
    second += second >= first  # the second is another prompt than the first
    order = np.argsort(batch.valid.sum(-1), kind="stable")
    starts = (np.cumsum(sizes) - sizes)[group]
    clean, corrupted = order[starts + first], order[starts + second]
    return Batch(**{**vars(take(batch, clean)), "corrupted": batch.tokens[corrupted]})


def _replaced(config: tracr.Config, tokens: np.ndarray) -> np.ndarray:
    """Shifts each symbol in the vocabulary, by an amount that differs from place to place."""
    symbols = np.array(config.symbols)
    rows, columns = np.indices(tokens.shape)
    shift = 1 + (rows + columns) % max(len(symbols) - 1, 1)
    rank = np.searchsorted(symbols, tokens)  # of BOS and padding: any, they stay
    shifted = symbols[(rank + shift) % len(symbols)]
    return np.where(np.isin(tokens, symbols), shifted, tokens).astype(np.int32)
