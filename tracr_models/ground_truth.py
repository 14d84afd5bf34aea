"""The true circuit of a compiled program, found by trying.

A circuit is *faithful* if it decodes to the intact program's outputs on the whole domain: the
same class, or a number at most 0.05 off. An edge is *necessary* if the full model without it is
not faithful. The necessary edges are the truth if they are faithful by themselves and nothing
else does with less, which `certificate.py` looks into.

`truth.json` is a circuit file. Its provenance holds the ablation, the criterion, the domain and
the certificate, for all of them are part of what "true" means: `reverse` has 11 true edges under
zero ablation, and 2 under interchange.

    python -m tracr_models.ground_truth [NAME ...] [--ablation interchange] [--at FOLDER]

Axes: E edges, M circuits, N prompts or pairs, A scored positions, V outputs.
"""

import argparse
import hashlib
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from edgeprune_jax import circuit_json
from edgeprune_jax.circuits import Circuit
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.models import tracr
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.stream import Model
from edgeprune_jax.tasks.batch import Batch, take
from tracr_models.certificate import Judge, certify
from tracr_models.domain import every_pair, full_domain, logits, read_domain

ABLATIONS = ("zero", "interchange")
TOLERANCE = 0.05  # of a number, as in the paper
_FIRST, _REST = (256, 8), (16, 128)  # circuits x rows at once: a few rows convict most circuits


def find(folder: str | Path, *, ablation: str = "zero", seed: int = 0) -> Circuit:
    """The necessary edges of a compiled program; provenance says whether they are the truth.

    Zero ablation is judged on every prompt, interchange on every pair of equal length.
    Raises `ValueError` for another ablation.
    """
    if ablation not in ABLATIONS:
        raise ValueError(f"ablation must be among {ABLATIONS}: got {ablation!r}")
    loaded, batch = tracr.load(folder), full_domain(folder)
    if ablation == "interchange":
        batch = every_pair(batch)
    numerical = tracr.read_config(folder).outputs is None
    judge = make_judge(loaded, batch, ablation=ablation, numerical=numerical, seed=seed)
    necessary = ~judge(~np.eye(loaded.graph.n_edges, dtype=bool))
    provenance = {
        "model": {"name": loaded.name, "digest": loaded.digest},
        "task": loaded.name,
        "data": {**read_domain(folder)._asdict(), "examples": len(batch), "digest": digest(batch)},
        "ablation": ablation,
        "method": "edges that are necessary by exhaustive single-edge ablation",
        "settings": {
            "criterion": f"within {TOLERANCE} everywhere" if numerical else "same class everywhere",
            "seed": seed,
        },
        "certificate": certify(judge, necessary, seed=seed),
    }
    return Circuit(loaded.graph, necessary, provenance)


def load(folder: str | Path, *, ablation: str = "zero") -> Circuit:
    """Reads the stored truth. Raises `ValueError` if it is that of other weights or prompts."""
    path = truth_path(folder, ablation)
    truth, loaded = circuit_json.load(path), tracr.load(folder)
    model, data = (truth.provenance.get(key, {}) for key in ("model", "data"))
    spec = read_domain(folder)._asdict()
    if model.get("digest") != loaded.digest or {key: data.get(key) for key in spec} != spec:
        raise ValueError(f"{path} is not of these weights and this domain: find it anew")
    return truth


def truth_path(folder: str | Path, ablation: str) -> Path:
    return Path(folder) / ("truth.json" if ablation == "zero" else f"truth_{ablation}.json")


def digest(batch: Batch) -> str:
    """`sha256:` and the hash of all that a verdict depends on besides the weights."""
    total = hashlib.sha256()
    for name, array in sorted(vars(batch).items()):
        if array is None:
            continue
        total.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    return f"sha256:{total.hexdigest()}"


def make_judge(
    loaded: Loaded, batch: Batch, *, ablation: str, numerical: bool, seed: int = 0
) -> Judge:
    """A function that says which of many circuits are faithful on the whole batch."""
    expected = logits(loaded, batch.tokens, batch.valid, batch.positions)
    order = np.random.default_rng(seed).permutation(len(batch))
    first, rest = order[: _FIRST[1]], order[_FIRST[1] :]
    step, rows = _REST[0], min(_REST[1], len(rest))
    parts = [(_FIRST, first)]
    parts += [((step, rows), rest[at : at + rows]) for at in range(0, len(rest), rows or 1)]

    def judge(circuits: Bool[np.ndarray, "M E"]) -> Bool[np.ndarray, " M"]:
        faithful = np.ones(len(circuits), bool)
        for (step, size), part in parts:
            alive = np.flatnonzero(faithful)
            rows = np.resize(part, size)  # repeats some, so that one shape is compiled
            some, outputs = take(batch, rows), expected[rows]
            for at in range(0, len(alive), step):
                chosen = np.resize(alive[at : at + step], step)
                faithful[chosen] &= np.asarray(_faithful(
                    loaded.model, loaded.graph, ablation, numerical, loaded.params,
                    circuits[chosen], some, outputs,
                ))  # fmt: skip
        return faithful

    return judge


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _faithful(
    model: Model, graph: Graph, ablation: str, numerical: bool, params: PyTree,
    circuits: Bool[Array, "M E"], batch: Batch, expected: Float[Array, "N A V"],
) -> Bool[Array, " M"]:  # fmt: skip
    def one(kept: Bool[Array, " E"]) -> Bool[Array, ""]:
        outputs = masked_forward(
            model, params, batch.tokens, Edges(kept.astype(jnp.float32), graph),
            corrupted_tokens=batch.corrupted if ablation == "interchange" else None,
            ablation=ablation, valid=batch.valid, positions=batch.positions,
        )  # fmt: skip
        if numerical:
            right = jnp.abs(outputs - expected)[..., 0] <= TOLERANCE
        else:
            right = outputs.argmax(-1) == batch.targets
        return jnp.all(right | (batch.scored == 0))

    return jax.lax.map(one, circuits, batch_size=16)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tracr_models.ground_truth")
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all in the folder")
    parser.add_argument("--at", type=Path, default=Path(__file__).parent, metavar="FOLDER")
    parser.add_argument("--ablation", default="zero", choices=ABLATIONS)
    options = parser.parse_args(arguments)
    names = options.names or sorted(path.parent.name for path in options.at.glob("*/config.json"))
    for name in names:
        start = time.perf_counter()
        truth = find(options.at / name, ablation=options.ablation)
        circuit_json.save(truth, truth_path(options.at / name, options.ablation))
        certificate = truth.provenance["certificate"]
        print(f"{name}: {len(truth)} of {truth.graph.n_edges} edges, sufficient: "
              f"{certificate['sufficient']}, unique: {certificate['unique']}, "
              f"{time.perf_counter() - start:.1f} s")  # fmt: skip


if __name__ == "__main__":
    main()
