"""The true circuit of a compiled program, found by trying.

An edge is *necessary* if the full model without it is not faithful on the whole domain; `judge.py`
says what faithful means. The necessary edges are the truth if they are faithful by themselves and
nothing else does with less, which `certificate.py` looks into. Where something does, the program
is *not unique*, and the minimal circuits that were found take the truth's place.

A stored truth is a circuit file. Its provenance holds the ablation, the criterion, the domain and
the certificate, for all of them are part of what "true" means: `reverse` has 11 true edges under
zero ablation, and 2 under interchange.

    python -m tracr_models.ground_truth FOLDER ... [--ablation interchange]

Axes: E edges, L live edges.
"""

import argparse
import hashlib
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from edgeprune_jax import circuit_json
from edgeprune_jax.circuits import Circuit, jaccard
from edgeprune_jax.models import tracr
from edgeprune_jax.tasks.batch import Batch
from tracr_models.certificate import ALL, certify
from tracr_models.domain import MAX_PAIRS, count_pairs, every_pair, full_domain, read_domain
from tracr_models.judge import TOLERANCES, make_judge
from tracr_models.live import live_edges
from tracr_models.stored_truth import minimal_circuits, read, truth_file

ABLATIONS = ("zero", "interchange")
CRITERIA = tuple(TOLERANCES)
MAX_PROVED = 200_000  # pairs: a proof takes them all
HOME = Path(__file__).parent  # of the truths that come with the package, a folder for each program


def find(
    folder: str | Path, *, ablation: str = "zero", criterion: str = "decoded", seed: int = 0
) -> Circuit:
    """The necessary edges of a compiled program; provenance says whether they are the truth.

    Zero ablation is judged on every prompt, interchange on every pair of equal length: where
    there are too many, or too many live edges for a proof, on 20,000 drawn with `seed`. Raises
    `ValueError` for another ablation or criterion.
    """
    _check(ablation, criterion)
    loaded, classes = tracr.load(folder), tracr.read_config(folder).outputs
    live = live_edges(loaded.params, loaded.graph, ablation=ablation)
    batch, whole = _examples(folder, live, ablation=ablation, seed=seed)
    judge, necessary = make_judge(loaded, batch, ablation=ablation, criterion=criterion, live=live)
    certificate, minimal = certify(judge, necessary, whole=whole, seed=seed)

    def circuit(kept: np.ndarray, provenance: dict) -> Circuit:
        every = np.zeros(len(live), bool)
        every[live] = kept
        return Circuit(loaded.graph, every, provenance)

    if not certificate["unique"]:
        certificate["minimal_circuits"] = [
            [" -> ".join(edge) for edge in circuit(kept, {})] for kept in minimal
        ]
    provenance = {
        "model": {"name": loaded.name, "digest": loaded.digest},
        "task": loaded.name,
        "data": {
            **read_domain(folder)._asdict(),
            "examples": len(batch),
            "digest": digest(batch),
            "classes": classes and len(classes),  # None of a number
        },
        "ablation": ablation,
        "method": "edges that are necessary by exhaustive single-edge ablation",
        "settings": {**_settings(criterion), "seed": seed},
        "certificate": certificate,
    }
    return circuit(necessary, provenance)


def load(folder: str | Path, *, ablation: str = "zero", criterion: str = "decoded") -> Circuit:
    """Reads the stored truth, from the program's folder or from those of the package.

    Raises `FileNotFoundError` where there is none, and `ValueError` if it is that of other
    weights, prompts or settings.
    """
    _check(ablation, criterion)
    config, file = tracr.read_config(folder), truth_file(ablation, criterion)
    path = Path(folder) / file
    if not path.is_file() and (HOME / config.name / file).is_file():
        path = HOME / config.name / file
    truth, weights = read(path, ablation=ablation, criterion=criterion), tracr.load(folder)
    live = live_edges(weights.params, weights.graph, ablation=ablation)
    batch, _ = _examples(folder, live, ablation=ablation, seed=0)
    meant = {
        "model": {"digest": weights.digest},
        "data": {**read_domain(folder)._asdict(), "digest": digest(batch)},
        "settings": {**_settings(criterion), "seed": 0},
    }
    for name, entries in meant.items():
        said = truth.provenance.get(name)
        if not isinstance(said, dict) or {key: said.get(key) for key in entries} != entries:
            raise ValueError(f"{path} is not of these weights and this domain: find it anew")
    if truth.graph != weights.graph:
        raise ValueError(f"{path} is of {truth.graph}, not of {weights.graph}: find it anew")
    return truth


def obtain(folder: str | Path, *, ablation: str = "zero", criterion: str = "decoded") -> Circuit:
    """The stored truth of a compiled program; if it does not fit, a new one, which is stored."""
    try:
        return load(folder, ablation=ablation, criterion=criterion)
    except (FileNotFoundError, ValueError):
        truth = find(folder, ablation=ablation, criterion=criterion)
        circuit_json.save(truth, Path(folder) / truth_file(ablation, criterion))
        return truth


def certified(truth: Circuit) -> bool:
    """Whether the necessary edges are the one true circuit, as far as was looked."""
    return truth.provenance["certificate"]["unique"]


def true_circuits(truth: Circuit) -> list[Circuit]:
    """The truth, or where it is not unique, the minimal circuits that were found."""
    if certified(truth):
        return [truth]
    listed = truth.provenance["certificate"]["minimal_circuits"]
    return minimal_circuits(truth.graph, listed, truth.provenance)


def nearest(found: Circuit, truth: Circuit) -> Circuit:
    """The true circuit that a found one has to be held against: there may be several."""
    return max(true_circuits(truth), key=lambda circuit: jaccard(circuit, found))


def digest(batch: Batch) -> str:
    """`sha256:` and the hash of all that a verdict depends on besides the weights."""
    total = hashlib.sha256()
    for name, array in sorted(vars(batch).items()):
        if array is None:  # a field that these tasks do not have
            continue
        total.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    return f"sha256:{total.hexdigest()}"


def _examples(
    folder: str | Path, live: np.ndarray, *, ablation: str, seed: int
) -> tuple[Batch, bool]:
    """What circuits are judged on, and whether that is all there is."""
    batch = full_domain(folder)
    if ablation == "zero":
        return batch, True
    count = count_pairs(batch)
    whole = count <= MAX_PAIRS or (live.sum() <= ALL and count <= MAX_PROVED)
    return every_pair(batch, most=count if whole else MAX_PAIRS, seed=seed), whole


def _settings(criterion: str) -> dict:
    return {"criterion": criterion, "tolerance": TOLERANCES[criterion]}


def _check(ablation: str, criterion: str) -> None:
    for name, value, known in (
        ("ablation", ablation, ABLATIONS), ("criterion", criterion, CRITERIA),
    ):  # fmt: skip
        if value not in known:
            raise ValueError(f"{name} must be among {', '.join(known)}: got {value!r}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tracr_models.ground_truth")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--ablation", choices=ABLATIONS, help="default: each")
    parser.add_argument("--criterion", choices=CRITERIA, help="default: each")
    options = parser.parse_args(arguments)
    ablations = [options.ablation] if options.ablation else ABLATIONS
    criteria = [options.criterion] if options.criterion else CRITERIA
    for folder, ablation, criterion in product(options.folders, ablations, criteria):
        start = time.perf_counter()
        truth = find(folder, ablation=ablation, criterion=criterion)
        circuit_json.save(truth, folder / truth_file(ablation, criterion))
        certificate = truth.provenance["certificate"]
        print(f"{folder.name}, {ablation}, {criterion}: {len(truth)} of {truth.graph.n_edges} "
              f"edges, sufficient: {certificate['sufficient']}, unique: {certificate['unique']}, "
              f"proof: {certificate['proof']}, {time.perf_counter() - start:.1f} s")  # fmt: skip


if __name__ == "__main__":
    main()
