"""Examples of a task: prompts, their corrupted twins, and where to look.

Axes: B examples, T tokens (padded on the right), A scored positions.
"""

from dataclasses import dataclass

import jax
from jax import Array
from jax.tree_util import register_dataclass


@register_dataclass
@dataclass(frozen=True)
class Batch:
    """Aligned prompt pairs. Arrays are numpy on the host until a step takes them.

    Logits at `positions` predict the answer. Where an example scores fewer than A positions,
    `scored` is 0 at the others. A task without a wrong answer sets `foils` to -1.
    """

    tokens: Array  # B T int32
    corrupted: Array  # B T int32: same lengths, token by token
    valid: Array  # B T bool: not padding
    positions: Array  # B A int32: indices into T
    scored: Array  # B A float32, 1 or 0
    targets: Array  # B A int32: the right answer's token
    foils: Array  # B A int32: the wrong answer's token

    def __len__(self) -> int:
        return self.tokens.shape[0]


def take(batch: Batch, rows) -> Batch:
    """The examples at `rows`, an index array or a slice."""
    return jax.tree.map(lambda leaf: leaf[rows], batch)
