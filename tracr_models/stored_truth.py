"""Reads a stored truth. The file may come from others: what it says of itself is checked."""

from collections.abc import Callable
from pathlib import Path

from edgeprune_jax import circuit_json
from edgeprune_jax.circuits import Circuit, from_names
from edgeprune_jax.graph import Graph


def truth_file(ablation: str, criterion: str) -> str:
    return f"truth_{ablation}_{criterion}.json"


def read(path: Path, *, ablation: str, criterion: str) -> Circuit:
    """The truth in a file, of this ablation and criterion, with a certificate of the right form.

    Raises `FileNotFoundError`, and `ValueError` naming the file and what is wrong.
    """
    truth = circuit_json.load(path)
    said = truth.provenance
    settings, data = (_entries(path, said, name) for name in ("settings", "data"))
    certificate = _entries(path, said, "certificate")
    for name, got, meant in (
        ("ablation", said.get("ablation"), ablation),
        ("settings.criterion", settings.get("criterion"), criterion),
    ):
        if got != meant:
            raise ValueError(f"{path}: {name} must be {meant}: got {got!r:.80}")
    for name, fits in FORM.items():
        entries, key = (data, name[5:]) if name.startswith("data.") else (certificate, name)
        if not fits(entries.get(key)):
            raise ValueError(f"{path}: {name} has not the form of a truth's: got "
                             f"{entries.get(key)!r:.80}")  # fmt: skip
    if certificate["proof"] > certificate["unique"] or (
        certificate["unique"] > certificate["sufficient"]
    ):
        raise ValueError(f"{path}: a proof must be unique, and what is unique sufficient")
    if not certificate["unique"]:
        try:
            minimal_circuits(truth.graph, certificate.get("minimal_circuits"))
        except ValueError as error:
            raise ValueError(f"{path}: minimal_circuits: {error}") from None
    return truth


def minimal_circuits(graph: Graph, listed: object, provenance: dict | None = None) -> list[Circuit]:
    """Circuits from lists of `writer -> reader`. Raises `ValueError` for anything else."""
    if not isinstance(listed, list) or not listed or not all(map(_is_texts, listed)):
        raise ValueError(f"must be lists of 'writer -> reader': got {listed!r:.80}")
    pairs = [[edge.split(" -> ") for edge in edges] for edges in listed]
    if odd := [edge for edges in pairs for edge in edges if len(edge) != 2]:
        raise ValueError(f"must be lists of 'writer -> reader': got {odd[0]!r:.80}")
    named = ([(writer, reader) for writer, reader in edges] for edges in pairs)
    return [from_names(graph, edges, provenance=provenance) for edges in named]


def _entries(path: Path, said: dict, name: str) -> dict:
    if not isinstance(said.get(name), dict):
        raise ValueError(f"{path}: {name} must be an object: got {said.get(name)!r:.80}")
    return said[name]


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is(*kinds: type) -> Callable[[object], bool]:
    return lambda value: type(value) in kinds  # a bool is an int


FORM = {
    "sufficient": _is(bool), "unique": _is(bool), "proof": _is(bool),
    "data.examples": _is(int), "data.digest": _is(str), "data.classes": _is(int, type(None)),
}  # fmt: skip
