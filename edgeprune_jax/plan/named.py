"""Models without weights: their functions, their graph and the shapes of their parameters."""

from pathlib import Path
from typing import NamedTuple

from jaxtyping import PyTree

from edgeprune_jax.graph import Graph
from edgeprune_jax.models.huggingface import read_config
from edgeprune_jax.models.stored import abstract
from edgeprune_jax.stream import Model

_CONFIGS = Path(__file__).parent / "configs"


class Shape(NamedTuple):
    """A model that can be compiled and not run."""

    model: Model
    params: PyTree  # of `jax.ShapeDtypeStruct`
    graph: Graph
    vocab: int


def names() -> list[str]:
    """The models whose `config.json` is stored here."""
    return sorted(path.stem for path in _CONFIGS.glob("*.json"))


def read_shape(name_or_path: str, *, dtype: str, layers: int | None = None) -> Shape:
    """A model by one of `names()`, or by its `config.json` or the folder that holds it.

    `layers` keeps only the first so many. Raises `ValueError` or `FileNotFoundError` for what is
    not there or not supported.
    """
    path = _CONFIGS / f"{name_or_path}.json" if name_or_path in names() else Path(name_or_path)
    if path.is_dir():
        path = path / "config.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{name_or_path} is neither a folder with a config.json nor one of {', '.join(names())}"
        )
    family, config = read_config(path, layers=layers)
    return Shape(
        family.module.build(config),
        abstract(family.module.layout(config), dtype=dtype),
        family.module.graph(config),
        config.vocab,
    )
