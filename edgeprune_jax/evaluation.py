"""How faithful a circuit is: to the model, and to the task.

Every circuit is judged by running it, not by what found it, on the same prompts as the full
model, the corrupted run (the empty circuit) and random circuits of its size.

Axes: N examples, C circuits, B examples of a batch, A scored positions, V vocabulary, E edges.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from edgeprune_jax import hosts
from edgeprune_jax.ablation import settle, writes_for
from edgeprune_jax.circuits import Circuit, mask
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.measures.ordered import ordered_measures
from edgeprune_jax.objectives import kl, mean_scored, squared_error
from edgeprune_jax.stream import Model, Writes, plain_forward
from edgeprune_jax.tasks.batch import Batch, parts, take

MAY_LACK = ("logit_difference", "kendall_tau")
CONTROLS = {"full", "empty", "random", "best random"}
MEASURES = (
    "kl", "logit_difference", "choice_kl", "probability_difference", "within_10_years",
    "kendall_tau", "accuracy", "exact_match", "squared_error",
)  # fmt: skip


def measures(
    teacher: Float[Array, "B A V"], logits: Float[Array, "B A V"], batch: Batch
) -> dict[str, Float[Array, " B"]]:
    """What is measured of each example, averaged over its scored positions.

    Of a model that outputs one number (V is 1): `squared_error`, the distance from the full
    model's. Of all others: `kl`, KL(teacher || circuit) in nats; `logit_difference`, the target's
    logit minus the foil's, nan without a foil; `accuracy`, whether the target has the largest
    logit; `exact_match`, whether the largest logit is the full model's. With ordered choices, such
    as years, the accuracy is another and more is measured (`measures.ordered`).
    """
    if logits.shape[-1] == 1:
        return {"squared_error": squared_error(teacher, logits, batch.scored)}
    choice, reference = jnp.argmax(logits, -1), jnp.argmax(teacher, -1)

    def of(tokens):
        index = jnp.maximum(tokens, 0)[..., None]
        return jnp.take_along_axis(logits.astype(jnp.float32), index, axis=-1)[..., 0]

    difference = jnp.where(batch.foils >= 0, of(batch.targets) - of(batch.foils), jnp.nan)
    right = (choice == batch.targets).astype(jnp.float32)
    same = (choice == reference).astype(jnp.float32)
    found = {
        "kl": kl(teacher, logits, batch.scored),
        "logit_difference": mean_scored(difference, batch.scored),
        "accuracy": mean_scored(right, batch.scored),
        "exact_match": mean_scored(same, batch.scored),
    }
    return found if batch.choices is None else found | ordered_measures(teacher, logits, batch)


def teacher_logits(
    model: Model, params: PyTree, data: Batch, *, batch_size: int = 32
) -> Float[np.ndarray, "N A V"]:
    """The full model's logits at the scored positions, once for a whole data set, on the host."""
    found = [
        hosts.fetch(_plain_logits(model, params, take(data, chosen)))[:count]
        for chosen, count in parts(len(data), batch_size)
    ]
    return np.concatenate(found)


@partial(jax.jit, static_argnums=0)
def _plain_logits(model: Model, params: PyTree, batch: Batch) -> Float[Array, "B A V"]:
    return plain_forward(model, params, batch.tokens, valid=batch.valid, positions=batch.positions)


def measure_masks(
    model: Model,
    params: PyTree,
    masks: Sequence[Edges],
    data: Batch,
    *,
    ablation: str | Writes = "interchange",
    batch_size: int = 32,
) -> list[dict[str, Float[np.ndarray, " N"]]]:
    """The measures of several masks on every example.

    The full model's run and the corrupted run of a batch are shared by all masks.
    """
    values = np.stack([one.values for one in masks])
    if isinstance(ablation, str):
        ablation = settle(model, params, data, ablation)
    kind, given = (ablation, None) if isinstance(ablation, str) else ("", ablation)
    found = []
    for chosen, count in parts(len(data), batch_size):
        result = _measure(model, masks[0].graph, kind, params, values, take(data, chosen), given)
        found.append(jax.tree.map(lambda leaf, n=count: leaf[:, :n], hosts.fetch(result)))
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *found)
    return [{name: rows[i] for name, rows in joined.items()} for i in range(len(masks))]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _measure(
    model: Model,
    graph: Graph,
    kind: str,  # of ablation; not read where the writes are given
    params: PyTree,
    values: Float[Array, "C E"],
    batch: Batch,
    given: Writes | None,
) -> dict[str, Float[Array, "C B"]]:
    teacher = _plain_logits(model, params, batch)
    cut = writes_for(model, params, batch, kind) if given is None else given

    def one(row):
        logits = masked_forward(
            model, params, batch.tokens, Edges(row, graph), ablation=cut,
            valid=batch.valid, positions=batch.positions,
        )  # fmt: skip
        return measures(teacher, logits, batch)

    return jax.lax.map(one, values)


def summarise(found: dict[str, Float[np.ndarray, " N"]]) -> dict[str, float]:
    """Means over the examples.

    Examples without a foil have no logit difference, and flat choices no tau: such a measure is
    the mean over the examples that have it, and left out where none has. Another that is nan
    stays nan.
    """
    means = {}
    for name in MEASURES:
        values = found.get(name)
        if values is not None and name in MAY_LACK:
            values = values[~np.isnan(values)]
        if values is not None and len(values):
            means[name] = float(np.mean(values))
    return means


def random_circuits(graph: Graph, edges: int, count: int, *, seed: int) -> list[Circuit]:
    """Circuits of a given size, drawn uniformly: the control for any circuit of that size."""
    generator = np.random.default_rng(seed)
    circuits = []
    for _ in range(count):
        kept = np.zeros(graph.n_edges, bool)
        kept[generator.permutation(graph.n_edges)[:edges]] = True
        circuits.append(Circuit(graph, kept))
    return circuits


class Row(NamedTuple):
    """A circuit's size, and its measures of every example."""

    edges: int
    found: dict[str, Float[np.ndarray, " N"]]


class Measured(NamedTuple):
    """Named circuits with `full` and `empty` after them, and random ones as large as the first."""

    rows: dict[str, Row]
    random: list[Row]


def measure_circuits(
    model: Model,
    params: PyTree,
    circuits: Mapping[str, Circuit],
    data: Batch,
    *,
    ablation: str | Writes = "interchange",
    n_random: int = 0,
    seed: int = 0,
    batch_size: int = 32,
) -> Measured:
    """Runs named circuits, the full and the empty one and `n_random` random ones on all examples.

    Raises `ValueError` for no circuits, names of controls, and circuits of different graphs.
    """
    if not circuits:
        raise ValueError("evaluate needs at least one circuit: got none")
    if taken := sorted(CONTROLS & circuits.keys()):
        raise ValueError(f"{', '.join(taken)} names a control: give the circuit another name")
    first = next(iter(circuits.values()))
    graph = first.graph
    for name, circuit in circuits.items():
        if circuit.graph != graph:
            raise ValueError(
                f"circuits must share one graph: {name!r} is of {circuit.graph}, "
                f"the first of {graph}"
            )
    nothing = np.zeros(graph.n_edges, bool)
    named = {**circuits, "full": Circuit(graph, ~nothing), "empty": Circuit(graph, nothing)}
    run = [*named.values(), *random_circuits(graph, len(first), n_random, seed=seed)]
    found = measure_masks(
        model, params, [mask(circuit) for circuit in run], data, ablation=ablation,
        batch_size=batch_size,
    )  # fmt: skip
    rows = [Row(len(circuit), one) for circuit, one in zip(run, found, strict=True)]
    return Measured(dict(zip(named, rows, strict=False)), rows[len(named) :])


def table(measured: Measured) -> dict[str, dict[str, float | int]]:
    """A row of mean measures and `edges` for each circuit and control.

    After the named rows come the mean (`random`) and the closest to the model (`best random`) of
    the random circuits.
    """
    means = {
        name: {"edges": row.edges, **summarise(row.found)} for name, row in measured.rows.items()
    }
    if measured.random:
        size = measured.random[0].edges
        controls = [summarise(row.found) for row in measured.random]
        means["random"] = {"edges": size} | mean_of_rows(controls)
        best = min(controls, key=lambda row: row[distance(row)])
        means["best random"] = {"edges": size, **best}
    return means


def mean_of_rows(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each measure over the rows that have it."""
    return {
        name: float(np.mean([row[name] for row in rows if name in row]))
        for name in MEASURES
        if any(name in row for row in rows)
    }


def distance(measures: Mapping) -> str:
    """The measure that says how far from the full model a circuit is."""
    return "kl" if "kl" in measures else "squared_error"


def evaluate(
    model: Model,
    params: PyTree,
    circuits: Mapping[str, Circuit],
    data: Batch,
    *,
    ablation: str | Writes = "interchange",
    n_random: int = 0,
    seed: int = 0,
    batch_size: int = 32,
) -> dict[str, dict[str, float | int]]:
    """Scores named circuits beside the full model, the empty circuit and random circuits.

    Returns one row of mean measures and `edges` for each name, then `full` and `empty`, then the
    mean (`random`) and the closest to the model (`best random`) of `n_random` circuits as large
    as the first. All on the same prompts.
    """
    return table(
        measure_circuits(
            model, params, circuits, data, ablation=ablation, n_random=n_random, seed=seed,
            batch_size=batch_size,
        )
    )  # fmt: skip
