"""What the commands share: models and data by name, and where both are written down."""

import hashlib
import shlex
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from edgeprune_jax import circuit_json, provenance, scores_file, sharding
from edgeprune_jax.circuits import Circuit, ranked
from edgeprune_jax.graph import Edges
from edgeprune_jax.models.load import load_model
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.settings import PruneConfig
from edgeprune_jax.sharding import MeshShape
from edgeprune_jax.tasks.alignment import Aligned
from edgeprune_jax.tasks.cache import load_task
from edgeprune_jax.tasks.splits import Split
from edgeprune_jax.warm_start import warm_start

DOMAIN = "domain"  # the task of a compiled program: its whole input domain


def find_model(name: str) -> Loaded:
    """A model by name or path; a program of the package by its name, compiled where it has to be.

    A `module:name` is not looked up: names come from circuit files too, and those may be hostile.
    """
    from tracr_models.programs import PROGRAMS
    from tracr_models.store import compiled

    return load_model(compiled(name) if name in PROGRAMS else name)


def find_data(loaded: Loaded, task: str, *, split: Split, n: int, seed: int) -> Aligned:
    """Examples of a task for a model, and what had to be left out, of which a warning tells.

    Raises `ValueError` for a task that the model lacks, and a seed that is out of range.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"--data-seed must be from 0 to 2**32 - 1: got {seed}")
    if task == DOMAIN:
        from tracr_models.domain import full_domain

        if loaded.program is None:
            raise ValueError(f"the task {DOMAIN!r} is that of compiled programs: got {loaded.name}")
        domain = full_domain(loaded.program)
        return Aligned(domain, np.arange(len(domain)), 0, "")
    if loaded.tokenizer is None:
        raise ValueError(f"{loaded.name} has no tokenizer for the task {task!r}: use {DOMAIN!r}")
    made = load_task(task, loaded.tokenizer, split=split, n=n, seed=seed)
    if made.left_out:
        warnings.warn(
            f"{made.left_out} of {made.left_out + len(made.batch)} {split} prompt pairs are left "
            f"out: {made.example}",
            stacklevel=2,
        )
    return made


def find_mesh(shape: MeshShape, loaded: Loaded, config: PruneConfig) -> Mesh | None:
    """The mesh of a run, None for one device.

    Raises `ValueError` as `whole_mesh` does, and where weights or batches do not divide.
    """
    mesh = sharding.whole_mesh(shape)
    if mesh is None:
        return None
    sharding.weight_shardings(loaded.params, mesh)
    if config.batch_size % (shape.data * shape.fsdp):
        raise ValueError(
            f"batch_size must be a multiple of mesh.data x mesh.fsdp, {shape.data * shape.fsdp}: "
            f"got {config.batch_size}"
        )
    return mesh


def read_circuit(path: Path, model: str | None, edges: int | None) -> tuple[Circuit, Loaded]:
    """A circuit file, or one of scores cut at `edges`, and its model: the one it names, or `model`.

    Raises `ValueError` where the circuit was found on other weights.
    """
    if path.suffix == ".safetensors":
        circuit = scores_file.load(path).circuit(edges)
        loaded = find_model(model or model_of(circuit, path))
    elif model is None:
        circuit = circuit_json.load(path)
        loaded = find_model(model_of(circuit, path))
    else:
        loaded = find_model(model)
        circuit = circuit_json.load(path, loaded.graph)
    digest = circuit.provenance.get("model", {}).get("digest")
    if circuit.graph != loaded.graph:
        raise ValueError(f"{path} is of {circuit.graph}, the model {loaded.name} of {loaded.graph}")
    if digest is not None and digest != loaded.digest:
        raise ValueError(f"{path} was found on weights {digest}, {loaded.name} has {loaded.digest}")
    return circuit, loaded


def read_start(path: Path, loaded: Loaded, config: PruneConfig) -> tuple[Edges, dict]:
    """Log-alphas to start from, by a file of scores, and what tells such a run from others.

    Raises `ValueError` where the scores are of another graph or of other weights.
    """
    scores = scores_file.load(path)
    if scores.edges.graph != loaded.graph:
        raise ValueError(f"{path} is of {scores.edges.graph}, {loaded.name} of {loaded.graph}")
    digest = scores.provenance.get("model", {}).get("digest")
    if digest not in (None, loaded.digest):
        raise ValueError(f"{path} was made on weights {digest}, {loaded.name} has {loaded.digest}")
    said = {name: scores.provenance.get(name) for name in ("method", "settings", "data", "seconds")}
    said["digest"] = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    try:
        first = warm_start(ranked(scores.edges, scores.sign), sparsity=config.start)
    except ValueError as error:
        raise ValueError(f"a warm start begins at the settings' `start`: {error}") from None
    return first, {"warm_start": said}


def model_of(circuit: Circuit, path: Path) -> str:
    """The name of the model that a circuit file says it is of."""
    name = circuit.provenance.get("model", {}).get("name")
    if not isinstance(name, str):
        raise ValueError(f"{path} does not name its model: give --model")
    return name


def origin(loaded: Loaded, **entries) -> dict:
    """Provenance of what a command makes: the entries, the model, the command line, this place."""
    here = {
        "devices": [device.device_kind for device in jax.devices()],
        "model": {"name": loaded.name, "digest": loaded.digest},
        "command": shlex.join(["edgeprune", *sys.argv[1:]]),
    }
    return provenance.collect(**(here | entries))
