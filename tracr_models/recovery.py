"""Does Edge Pruning recover the circuit of a compiled program?

One preset for every program. It is not told how many edges are true: a fixed price on edges
(a Lagrange multiplier that does not move) closes those that change no output, and the final
circuit is what the gates say.
"""

import dataclasses
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp

from edgeprune_jax.circuits import Circuit, from_mask
from edgeprune_jax.evaluation import teacher_logits
from edgeprune_jax.gates import discretise
from edgeprune_jax.models import tracr
from edgeprune_jax.pruning import PruneConfig, final_gates, init, prune
from tracr_models import ground_truth
from tracr_models.domain import full_domain

RECOVERY = PruneConfig(
    steps=600, batch_size=32, samples=4, gate_init=3.0, gate_rate=0.1, rate_warmup=10,
    multiplier_rate=0.0, price=0.002, divergence="squared", ablation="zero",
)  # fmt: skip


class Recovery(NamedTuple):
    """What was found, against the truth."""

    program: str
    seed: int
    found: Circuit
    truth: Circuit
    seconds: float

    @property
    def precision(self) -> float:
        return len(self.found & self.truth) / max(len(self.found), 1)

    @property
    def recall(self) -> float:
        return len(self.found & self.truth) / max(len(self.truth), 1)

    @property
    def exact(self) -> bool:
        return self.found == self.truth


def recover(folder: Path, *, seed: int, config: PruneConfig = RECOVERY) -> Recovery:
    """Prunes a compiled program on its input domain, compilation included in the seconds."""
    start = time.monotonic()
    loaded, data = tracr.load(folder), full_domain(folder)
    teacher = jnp.asarray(teacher_logits(loaded.model, loaded.params, data))
    config = dataclasses.replace(config, seed=seed)
    steps = prune(loaded.model, loaded.params, data, teacher, config, init(loaded.graph, config))
    ((state, _),) = deque(steps, maxlen=1)  # runs to the end, keeping the last
    found = from_mask(discretise(final_gates(state.trainable)))
    truth = ground_truth.load(folder, ablation=config.ablation)
    return Recovery(folder.name, seed, found, truth, time.monotonic() - start)
