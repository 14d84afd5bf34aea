"""What lies behind a row of means: intervals, tails, errors, and the rank among random circuits.

Everything here is computed from the measures of single examples, on the host.

Axes: N examples, M columns, R resamples.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from edgeprune_jax.evaluation import MAY_LACK, Measured, Row, distance
from edgeprune_jax.measures.bootstrap import interval, resampled_means

QUANTILES = (0.5, 0.9, 0.95, 0.99, 1.0)
TASK_MEASURES = ("logit_difference", "probability_difference", "accuracy")


def details(measured: Measured, *, seed: int = 0, worst: int = 5) -> dict[str, dict[str, Any]]:
    """For each circuit, what its row of means leaves out, as plain JSON.

    Each measure with `mean` and a 95 % bootstrap `interval` over examples; of the distance from
    the model also `quantiles` and the `worst` examples by row number; `faithfulness` and
    `agreement` as documented at those functions; and under `random` how the circuit compares with
    the random ones. `seed` is that of the bootstrap. A number that does not exist is None, and so
    is every mean over examples of which one failed (nan), but of measures that an example may lack.
    """
    full, empty = measured.rows["full"], measured.rows["empty"]
    found = {}
    for name, row in measured.rows.items():
        if name in ("full", "empty"):
            continue
        entry: dict[str, Any] = {"edges": row.edges}
        entry |= {
            measure: _mean(values[~np.isnan(values)] if measure in MAY_LACK else values, seed)
            for measure, values in row.found.items()
        }
        far = distance(row.found)
        entry[far] |= _tail(row.found[far], worst)
        entry["faithfulness"] = {
            measure: faithfulness(
                row.found[measure], full.found[measure], empty.found[measure], seed=seed
            )
            for measure in TASK_MEASURES
            if measure in row.found
        }
        if "accuracy" in full.found:
            entry["agreement"] = agreement(row.found, full.found, seed=seed)
        if measured.random:
            entry["random"] = _against_random(row, measured.random, seed)
        found[name] = entry
    return found


def overview(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The details that fit into a line for each circuit."""
    lines = {}
    for name, entry in found.items():
        far = distance(entry)
        line = {far: None}
        if entry[far]["interval"] is not None:
            low, high = entry[far]["interval"]
            line = {far: f"{entry[far]['mean']:.4g} ({low:.4g} to {high:.4g})"}
        quantiles = entry[far]["quantiles"]
        line |= {"95 % of prompts below": quantiles["0.95"], "largest": quantiles["1"]}
        line |= {
            f"faithfulness, {measure}": one["value"]
            for measure, one in entry["faithfulness"].items()
        }
        line |= {
            f"agrees on {part}": one["mean"] for part, one in entry.get("agreement", {}).items()
        }
        if "random" in entry:
            line["random ones closer"] = entry["random"]["closer"]
        lines[name] = line
    return lines


def faithfulness(
    circuit: Float[np.ndarray, " N"],
    full: Float[np.ndarray, " N"],
    empty: Float[np.ndarray, " N"],
    *,
    seed: int,
) -> dict[str, Any]:
    """(F(C) - F(empty)) / (F(full) - F(empty)) of mean measures F: 1 for the model, may exceed it.

    MIB (Mueller et al. 2025). None where the full model and the empty circuit measure alike.
    """
    there = ~np.isnan(circuit)
    columns = np.stack([circuit, full, empty], axis=1)[there].astype(float)
    if not len(columns) or np.isclose(columns[:, 1].mean(), columns[:, 2].mean()):
        return {"value": None, "interval": None}

    def ratio(means):
        of_circuit, of_full, of_empty = means.T
        with np.errstate(divide="ignore", invalid="ignore"):
            return (of_circuit - of_empty) / (of_full - of_empty)

    resampled = ratio(resampled_means(columns, seed=seed))
    return {
        "value": float(ratio(columns.mean(axis=0)[None])[0]),
        "interval": list(interval(resampled[np.isfinite(resampled)])),
    }


def agreement(
    circuit: Mapping[str, Float[np.ndarray, " N"]],
    full: Mapping[str, Float[np.ndarray, " N"]],
    *,
    seed: int,
) -> dict[str, Any]:
    """How often the circuit's choice is the model's, where the model is right and where it errs.

    A circuit that solves the task without being the model agrees with its successes only. An
    example with several scored positions counts as right if all of them are.
    """
    right = full["accuracy"] == 1
    parts = {"successes": right, "errors": ~right}
    return {
        name: {"examples": int(chosen.sum()), **_mean(circuit["exact_match"][chosen], seed)}
        for name, chosen in parts.items()
    }


def _mean(values: Float[np.ndarray, " N"], seed: int) -> dict[str, Any]:
    values = values.astype(float)
    if not len(values) or np.isnan(values).any():
        return {"mean": None, "interval": None}
    resampled = resampled_means(values[:, None], seed=seed)[:, 0]
    return {"mean": float(values.mean()), "interval": list(interval(resampled))}


def _tail(values: Float[np.ndarray, " N"], worst: int) -> dict[str, Any]:
    failed = np.isnan(values)
    order = np.argsort(-np.where(failed, np.inf, values), kind="stable")[:worst]
    return {
        "quantiles": {
            f"{q:g}": None if failed.any() else float(np.quantile(values, q)) for q in QUANTILES
        },
        "worst": [{"row": int(i), "value": None if failed[i] else float(values[i])} for i in order],
    }


def _against_random(row: Row, random: list[Row], seed: int) -> dict[str, Any]:
    """The best random circuit's mean distance minus the circuit's own, prompt by prompt.

    The random circuits are as large as the first named circuit, which may be another one.
    """
    far = distance(row.found)
    means = [float(one.found[far].mean()) for one in random]
    best = random[int(np.argmin(means))]
    return {
        "edges": best.edges,
        "circuits": len(random),
        "closer": sum(mean < float(row.found[far].mean()) for mean in means),
        "margin_of_best": _mean(best.found[far] - row.found[far], seed),
    }
