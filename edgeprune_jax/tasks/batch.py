"""Examples of a task: prompts, their corrupted twins, and where to look.

Axes: B examples, T tokens (padded on the right), A scored positions.
"""

import hashlib
from dataclasses import dataclass, fields
from typing import Any

import jax
import numpy as np
from jax.tree_util import register_dataclass
from jaxtyping import Int

Array = Any  # of numpy or JAX; and in a tree that JAX rebuilds, also a sharding or a shape


@register_dataclass
@dataclass(frozen=True)
class Batch:
    """Aligned prompt pairs. Arrays are numpy on the host until a step takes them.

    Logits at `positions` predict the answer. Where an example scores fewer than A positions,
    `scored` is 0 at the others. A task without a wrong answer sets `foils` to -1.

    Where the answer is one of C ordered choices, such as years, `choices` are their tokens in
    order and `pivots` the index that a right one must exceed; `targets` is then one of the right.
    """

    tokens: Array  # B T int32
    corrupted: Array  # B T int32: same lengths, token by token
    valid: Array  # B T bool: not padding
    positions: Array  # B A int32: indices into T
    scored: Array  # B A float32, 1 or 0
    targets: Array  # B A int32: the right answer's token
    foils: Array  # B A int32: the wrong answer's token
    choices: Array = None  # B C int32, or None
    pivots: Array = None  # B int32, or None

    def __len__(self) -> int:
        return self.tokens.shape[0]


def take(batch: Batch, rows) -> Batch:
    """The examples at `rows`, an index array or a slice."""
    return jax.tree.map(lambda leaf: leaf[rows], batch)


def rows(n: int, size: int, *, seed: int, step: int) -> Int[np.ndarray, " size"]:
    """The examples of batch `step`: `n` examples in a new order every epoch, epochs end to end.

    A batch that reaches past its epoch goes on in the next, so that all have `size` rows. Nothing
    is remembered from batch to batch: a resumed run sees the order of an uninterrupted one.
    """
    if n < 1 or size < 1 or step < 0:
        raise ValueError(
            f"a batch needs n >= 1 examples, size >= 1 and step >= 0: got {n=}, {size=}, {step=}."
        )
    first, last = step * size // n, ((step + 1) * size - 1) // n
    # One generator per epoch, numpy's counterpart of folding the epoch into a key.
    epochs = [
        np.random.default_rng((seed, epoch)).permutation(n) for epoch in range(first, last + 1)
    ]
    start = step * size - first * n
    return np.concatenate(epochs)[start : start + size]


def check(batch: Batch) -> Batch:
    """The batch itself, if every row keeps the contract of `Batch`; the error names a bad row."""
    given = {field.name: getattr(batch, field.name) for field in fields(batch)}
    arrays = {name: np.asarray(array) for name, array in given.items() if array is not None}
    (B, T), A = arrays["tokens"].shape, arrays["positions"].shape[-1]
    if ("choices" in arrays) != ("pivots" in arrays):
        raise ValueError("`choices` and `pivots` go together: got one of them.")
    C = arrays["choices"].shape[-1] if "choices" in arrays else 0
    shapes = dict.fromkeys(("tokens", "corrupted", "valid"), (B, T))
    shapes |= {"choices": (B, C), "pivots": (B,)}
    for name, array in arrays.items():
        shape = shapes.get(name, (B, A))
        if array.shape != shape:
            raise ValueError(f"`{name}` must have shape {shape}, got {array.shape}.")

    valid, scored = arrays["valid"], arrays["scored"]
    lengths = valid.sum(axis=1)
    answered = scored == 1
    rules = {
        "`valid` must be true up to the prompt's length and false after it": (
            (valid != (np.arange(T) < lengths[:, None])).any(axis=1) | (lengths == 0)
        ),
        "tokens must not be negative": (arrays["tokens"] < 0).any(axis=1),
        "corrupted tokens must not be negative": (arrays["corrupted"] < 0).any(axis=1),
        "`scored` must be 0 or 1": (~answered & (scored != 0)).any(axis=1),
        "`positions` must lie inside the padded row": (
            (arrays["positions"] < 0) | (arrays["positions"] >= T)
        ).any(axis=1),
        "scored positions must lie inside the prompt": (
            answered & (arrays["positions"] >= lengths[:, None])
        ).any(axis=1),
        "a scored position must have a target": (answered & (arrays["targets"] < 0)).any(axis=1),
        "the foil must differ from the target": (
            answered & (arrays["targets"] == arrays["foils"])
        ).any(axis=1),
    }
    if C:
        pivots = arrays["pivots"]
        rules["choices must be different tokens"] = (
            np.diff(np.sort(arrays["choices"]), axis=1) == 0
        ).any(axis=1) | (arrays["choices"] < 0).any(axis=1)
        rules["the pivot must have choices on both sides"] = (pivots < 1) | (pivots > C - 2)
    for rule, broken in rules.items():
        if broken.any():
            row = int(broken.argmax())
            values = {name: array[row].tolist() for name, array in arrays.items()}
            raise ValueError(f"row {row} ({broken.sum()} of {B} rows): {rule}; got {values}.")
    return batch


def digest(batch: Batch) -> str:
    """`sha256:` and the hash of all that the arrays hold: equal for equal examples in one order."""
    total = hashlib.sha256()
    for field in fields(batch):
        if (array := getattr(batch, field.name)) is not None:
            array = np.asarray(array)
            total.update(f"{field.name} {array.dtype.str} {array.shape} ".encode())
            for start in range(0, len(array), 4096):  # of a file that is mapped, some at a time
                total.update(np.ascontiguousarray(array[start : start + 4096]).data)
    return f"sha256:{total.hexdigest()}"


def parts(n: int, size: int) -> list[tuple[Int[np.ndarray, " size"], int]]:
    """Row indices that go through `n` examples in batches of one shape, and how many count.

    The last batch is filled with its last example.
    """
    starts = range(0, n, size)
    return [(np.minimum(np.arange(s, s + size), n - 1), min(size, n - s)) for s in starts]
