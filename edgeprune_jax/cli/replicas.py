"""The replicas of a run as circuits of their own, and how alike they are."""

import json
from pathlib import Path

from edgeprune_jax import atomic, circuit_json
from edgeprune_jax.circuits import Circuit, from_scores
from edgeprune_jax.measures.stability import stability
from edgeprune_jax.run import ranking, read_replicas


def write_replicas(folder: Path, circuit: Circuit) -> dict | None:
    """Writes each replica's circuit, as large as that of their mean, and their `stability`.

    They lie in `replicas/0.json` and so on, and in `stability.json`. None for a run of one.
    """
    circuits = [
        from_scores(ranking(gates), len(circuit), provenance=circuit.provenance | {"replica": n})
        for n, gates in enumerate(read_replicas(folder, circuit.graph))
    ]
    if not circuits:
        return None
    (folder / "replicas").mkdir(exist_ok=True)
    for number, one in enumerate(circuits):
        circuit_json.save(one, folder / "replicas" / f"{number}.json")
    found = stability(circuits)
    atomic.write(folder / "stability.json", json.dumps(found, indent=1) + "\n")
    return found
