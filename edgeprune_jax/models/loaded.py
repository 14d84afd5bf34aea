"""A model that is ready to be cut open: what every loader returns."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import PyTree

from edgeprune_jax.graph import Graph
from edgeprune_jax.stream import Model

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Shardings = Callable[[PyTree], PyTree]  # from the shapes of the parameters to where each goes


class Loaded(NamedTuple):
    """A model with its weights, its graph and its tokenizer.

    `digest` identifies the weights: SHA-256 of the bytes of the weight files, in order. `program`
    is the folder of a compiled program, which holds its input domain too.
    """

    model: Model
    params: PyTree
    graph: Graph
    tokenizer: "Tokenizer | None"  # None where the files bring none, as for Tracr
    name: str
    digest: str
    program: Path | None = None
