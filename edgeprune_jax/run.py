"""A pruning run as a folder: settings, metrics, checkpoints, and at the end the circuit.

    run.json          what the run is: model, task, data, settings
    metrics.jsonl     one object per logged step
    checkpoints/      orbax, removed when the run is done
    gates.safetensors final log-alphas; of several replicas their mean, and each one's
    circuit.json      the circuit, with provenance

A killed run goes on where it was when it is started again with the same settings; a folder that
holds another run is refused.
"""

import json
import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edgeprune_jax import atomic, checkpoints, hosts, replicas, sharding
from edgeprune_jax.ablation import settle
from edgeprune_jax.checkpoints import USUAL, Policy
from edgeprune_jax.circuits import Circuit, from_mask, reachable
from edgeprune_jax.evaluation import teacher_logits
from edgeprune_jax.gates import discretise, most_likely, soft_mask
from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.objectives import DIVERGENCES
from edgeprune_jax.pruning import PruneState, final_gates, init, prune
from edgeprune_jax.settings import PruneConfig
from edgeprune_jax.stream import plain_forward
from edgeprune_jax.tasks.batch import Batch

TEACHER_BYTES = 2**30  # of float32 logits kept on the host
LOG_EVERY = 10


def run_pruning(
    loaded: Loaded,
    data: Batch,
    config: PruneConfig,
    folder: Path,
    *,
    on_log: Callable[[dict], None] = lambda metrics: None,
    mesh: Mesh | None = None,
    policy: Policy = USUAL,
    first: Edges | None = None,
) -> Edges:
    """Prunes in a claimed folder, resuming what it holds, and returns the final log-alphas.

    Those of several replicas are their mean; `read_replicas` has each one's.

    `first` holds the log-alphas to start from, by default those of `init`. `on_log` receives the
    metrics of every tenth step, a dict of numbers with `step`. With a `mesh` the weights, batches
    and steps are split over its devices (`sharding`); without one the first device does all. A run
    may go on on another mesh than it began. Raises `ValueError` for what the mesh cannot split,
    naming the array, and for a checkpoint of another run or a broken one. Of several processes
    (`hosts`) all call this with the same arguments, and the writer's folder is the one that counts.
    """
    if found := _finished(folder, loaded.graph):
        return found
    params = sharding.place(loaded.params, sharding.weight_shardings, mesh)
    teacher = means = None
    with sharding.using(mesh):
        if worth_storing(loaded, data, config):
            teacher = teacher_logits(loaded.model, params, data)
        if config.ablation == "mean":
            means = settle(loaded.model, params, data, "mean")
    this, writes = checkpoints.describe(loaded, data, config), hosts.is_writer()
    opened = checkpoints.open_checkpoints(folder / "checkpoints", policy) if writes else None
    with opened or nullcontext() as manager:
        state = init(loaded.graph, config, examples=len(data), first=first)
        state = _newest(manager, state, this)
        done, log = int(state.step), folder / "metrics.jsonl"
        state = sharding.place(jax.tree.map(jnp.asarray, state), sharding.replicated, mesh)
        if writes:
            _drop_metrics(log, done)
        steps = prune(
            loaded.model, params, data, teacher, config, state, means=means, mesh=mesh
        )  # fmt: skip
        # Counted here: to ask the state for its step would be to wait for the device.
        for number, (state, metrics) in enumerate(steps, done + 1):
            if number % LOG_EVERY == 0 or number == config.steps:
                seen = {name: float(value) for name, value in hosts.fetch(metrics).items()}
                row = {"step": number} | seen
                if writes:
                    with log.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                on_log(row)
            if number % policy.every == 0 and number < config.steps:
                held = hosts.fetch(state)
                if manager is not None:
                    # Copied, because the next step takes the state's buffers.
                    checkpoints.save(manager, jax.tree.map(np.array, held), this)
    each = hosts.fetch(final_gates(state))
    gates = replicas.mean(each)
    if writes:
        alone = {} if gates is each else {"replicas": np.asarray(each.values)}
        held = {"edges": np.asarray(gates.values)} | alone
        atomic.write(folder / "gates.safetensors", save(held))
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return Edges(jnp.asarray(gates.values), loaded.graph)


def _finished(folder: Path, graph: Graph) -> Edges | None:
    """The final log-alphas of a run that has ended, whose checkpoints go; None for another."""
    path = folder / "gates.safetensors"

    def content() -> bytes:
        if not path.exists():
            return b""
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return path.read_bytes()

    found = hosts.from_writer(content)
    return _gates(found, path, graph) if found else None


def read_gates(folder: Path, graph: Graph) -> Edges:
    """The final log-alphas of a run. Raises `ValueError` where they are not of this graph."""
    path = folder / "gates.safetensors"
    return _gates(path.read_bytes(), path, graph)


def read_replicas(folder: Path, graph: Graph) -> list[Edges]:
    """The final log-alphas of each replica of a run; none where it had only one.

    Raises `ValueError` where they are not of this graph.
    """
    path = folder / "gates.safetensors"
    content = path.read_bytes()
    _gates(content, path, graph)
    values = load(content).get("replicas", np.zeros((0, graph.n_edges), np.float32))
    if values.shape[1:] != (graph.n_edges,):
        raise ValueError(f"{path} must hold {graph.n_edges} gates a replica: got {values.shape}")
    return replicas.separate(values, graph)


def _gates(content: bytes, path: Path, graph: Graph) -> Edges:
    try:
        values = load(content)["edges"]
    except (SafetensorError, KeyError):
        raise ValueError(f"{path} is no file of gates") from None
    if values.shape != (graph.n_edges,):
        raise ValueError(f"{path} must hold {graph.n_edges} gates: got {values.shape}")
    return Edges(jnp.asarray(values), graph)


def ranking(gates: Edges) -> Edges:
    """Final log-alphas as scores, none below 0, so that by size and by sign their order is one."""
    return Edges(gates.values - jnp.min(gates.values), gates.graph)


def check(loaded: Loaded, data: Batch, config: PruneConfig) -> None:
    """Raises `ValueError` where the divergence cannot judge such outputs; computes nothing."""
    shape = outputs(loaded, data)
    jax.eval_shape(DIVERGENCES[config.divergence], shape, shape, data.scored[:1])


def outputs(loaded: Loaded, data: Batch) -> jax.ShapeDtypeStruct:
    """The shape of the model's logits for one example, 1 A V."""
    return jax.eval_shape(
        partial(plain_forward, loaded.model), loaded.params, data.tokens[:1],
        positions=data.positions[:1],
    )  # fmt: skip


def worth_storing(loaded: Loaded, data: Batch, config: PruneConfig) -> bool:
    """Whether the full model's logits are computed once for all examples, or in every step.

    Once, if they fit into memory and if the steps see every example at least once; otherwise
    the steps' own forward passes are no more work.
    """
    size = len(data) * math.prod(outputs(loaded, data).shape) * 4
    return size <= TEACHER_BYTES and len(data) <= config.steps * config.batch_size


def discrete(gates: Edges, config: PruneConfig, *, edges: int | None, provenance: dict) -> Circuit:
    """The circuit of final gates, with its sparsity as targeted, soft, hard and reachable."""
    if edges is None and config.estimator == "score":
        circuit = from_mask(most_likely(gates))
    else:
        circuit = from_mask(discretise(gates, edges=edges))
    sparsity = {
        "target": config.target if config.control == "multipliers" else None,
        "soft": 1 - float(soft_mask(gates.values).mean()),
        "hard": circuit.sparsity,
        "reachable": reachable(circuit).sparsity,
    }
    return Circuit(circuit.graph, circuit.kept, provenance | {"sparsity": sparsity})


def claim(folder: Path, identity: dict) -> None:
    """Writes down what the run in a folder is, before any work.

    Raises `ValueError` where the folder holds another run, or another process runs another.
    """
    path = folder / "run.json"
    text = json.dumps(identity, indent=1, sort_keys=True)

    def first() -> bytes:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            atomic.write(path, text + "\n")
        return path.read_bytes()

    held, wanted = json.loads(hosts.from_writer(first)), json.loads(text)
    if held != wanted:
        names = sorted(k for k in held.keys() | wanted.keys() if held.get(k) != wanted.get(k))
        raise ValueError(
            f"{path.parent} holds another run (it differs in {', '.join(names)}): give another "
            "folder, or remove this one"
        )


def _newest(manager: Any, state: PruneState, this: dict) -> PruneState:
    """The state of the newest checkpoint, or `state` where there is none, in host memory."""
    leaves, tree = jax.tree.flatten(state)

    def content() -> bytes:
        found = jax.tree.leaves(checkpoints.restore(manager, state, this))
        return save({str(number): np.asarray(leaf) for number, leaf in enumerate(found)})

    found = load(hosts.from_writer(content))
    return tree.unflatten([found[str(number)] for number in range(len(leaves))])


def _drop_metrics(path: Path, step: int) -> None:
    """Drops those of steps that will be run again."""
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        atomic.write(path, "".join(kept))
