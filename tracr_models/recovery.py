"""Does Edge Pruning recover the circuit of a compiled program?

One preset for every program. It is not told how many edges are true: a fixed price on edges
(a Lagrange multiplier that does not move) closes those that change no output, and the circuit is
the gates' most likely mask. `experiments/recovery.py` changes the preset in one place at a time.
"""

import dataclasses
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from edgeprune_jax.circuits import Circuit, from_mask
from edgeprune_jax.evaluation import random_circuits
from edgeprune_jax.gates import most_likely
from edgeprune_jax.models import tracr
from edgeprune_jax.pruning import final_gates, init, prune
from edgeprune_jax.settings import PruneConfig
from tracr_models import ground_truth
from tracr_models.domain import every_pair, full_domain, logits
from tracr_models.polish import make_wrong, polish

RECOVERY = PruneConfig(
    steps=300, batch_size=128, hard_share=0.5, estimator="score", samples=32, gate_init=4.0,
    gate_rate=0.2, multiplier_rate=0.0, price=2.3, floor=5e-4,
    divergence="mistaken", ablation="zero",
)  # fmt: skip
FAILURE = {"decoded": "mistaken", "activations": "moved"}  # by the criterion of truth


class Recovery(NamedTuple):
    """What was found, against the truth: where that is not unique, the nearest of the true ones."""

    program: str
    seed: int
    ablation: str
    criterion: str
    found: Circuit
    polished: Circuit
    control: Circuit  # a random circuit of the found one's size, polished likewise
    truth: Circuit
    evaluations: int  # circuits that the polish ran, each on at most polish.EXAMPLES examples
    seconds: float  # of pruning and polish, compilation included

    @property
    def nearest(self) -> Circuit:
        return ground_truth.nearest(self.found, self.truth)

    @property
    def precision(self) -> float:
        both = len(self.found & self.nearest)
        return both / len(self.found) if len(self.found) else float(self.exact)

    @property
    def recall(self) -> float:
        both = len(self.found & self.nearest)
        return both / len(self.nearest) if len(self.nearest) else 1.0

    @property
    def exact(self) -> bool:
        return self.found == self.nearest

    @property
    def exact_polished(self) -> bool:
        return self.polished == ground_truth.nearest(self.polished, self.truth)

    @property
    def exact_control(self) -> bool:
        return self.control == ground_truth.nearest(self.control, self.truth)

    def row(self) -> dict:
        """All that is reported of a run, as JSON. Seconds to a tenth."""
        return {
            "program": self.program, "seed": self.seed, "ablation": self.ablation,
            "criterion": self.criterion, "edges": self.truth.graph.n_edges,
            "true": len(self.nearest), "found": len(self.found), "precision": self.precision,
            "recall": self.recall, "exact": self.exact, "exact_polished": self.exact_polished,
            "exact_control": self.exact_control, "evaluations": self.evaluations,
            "certified": ground_truth.certified(self.truth), "seconds": round(self.seconds, 1),
        }  # fmt: skip


def recover(
    folder: Path,
    *,
    seed: int,
    ablation: str = "zero",
    criterion: str = "decoded",
    config: PruneConfig = RECOVERY,
) -> Recovery:
    """Prunes a compiled program on its input domain, and holds the result against the truth."""
    truth = ground_truth.obtain(folder, ablation=ablation, criterion=criterion)
    start = time.monotonic()
    loaded, data = tracr.load(folder), full_domain(folder)
    if ablation == "interchange":
        data = every_pair(data)
    teacher = logits(loaded, data.tokens, data.valid, data.positions)
    config = dataclasses.replace(config, seed=seed, ablation=ablation)
    if criterion == "activations":
        config = dataclasses.replace(config, divergence=FAILURE[criterion])
    first = init(loaded.graph, config, examples=len(data))
    steps = prune(loaded.model, loaded.params, data, jnp.asarray(teacher), config, first)
    ((state, _),) = deque(steps, maxlen=1)  # runs to the end, keeping the last
    gates = final_gates(state)
    found = from_mask(most_likely(gates))
    failures = np.zeros(len(data)) if state.failures is None else np.asarray(state.failures)
    wrong = make_wrong(
        loaded, data, teacher, failures, ablation=ablation, failure=FAILURE[criterion], seed=seed
    )
    polished, evaluations = polish(found, np.asarray(gates.values), wrong)
    seconds = time.monotonic() - start
    (random,) = random_circuits(loaded.graph, len(found), 1, seed=seed)
    ranking = np.random.default_rng(seed).random(loaded.graph.n_edges)
    control, _ = polish(random, ranking, wrong)
    return Recovery(
        loaded.name, seed, ablation, criterion, found, polished, control, truth, evaluations,
        seconds,
    )  # fmt: skip
