"""Every way to score edges, by name, and the settings that tell two sets of scores apart."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import jax
import numpy as np
from jaxtyping import PyTree

from edgeprune_jax.ablation import ABLATIONS
from edgeprune_jax.baselines.acdc import acdc
from edgeprune_jax.baselines.controls import magnitude, random_scores
from edgeprune_jax.baselines.eap import eap
from edgeprune_jax.baselines.integrated import eap_ig
from edgeprune_jax.baselines.metrics import METRICS
from edgeprune_jax.baselines.patching import patch_edges
from edgeprune_jax.circuits import SIGNS
from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.stream import Model
from edgeprune_jax.tasks.batch import Batch

Method = Literal[
    "eap", "eap-ig-inputs", "eap-ig-activations", "exact", "acdc", "random", "magnitude"
]


@dataclass(frozen=True)
class AttributionConfig:
    """How edges are scored. A score's sign is that of the edge's effect on the metric."""

    method: Method = "eap"
    """How edges are scored."""
    metric: str | None = None
    """What edges have an effect on, more being better: 'answer' (the task's own, the default),
    'logit-difference', 'probability-difference', 'loss' (the answer's log-probability), 'kl' from
    the full model, negated (ACDC's default), or 'squared' error from it, negated."""
    ablation: str = "interchange"
    """What a cut edge carries: 'interchange', 'mean' or 'zero'."""
    sign: str = "absolute"
    """Which edges come first: those of the largest 'absolute' effects, or of the largest with
    their sign, 'signed'."""
    ig_steps: int = 5
    """Runs on the path of EAP-IG."""
    threshold: float = 0.01
    """ACDC's: an edge is cut if the metric falls by less."""
    batch_size: int = 8
    """Prompt pairs at once, a matter of speed alone."""
    seed: int = 0
    """Of random scores."""

    def __post_init__(self):
        if self.method not in get_args(Method):
            names = ", ".join(get_args(Method))
            raise ValueError(f"method must be one of {names}: got {self.method!r}")
        for name, allowed in (("ablation", ABLATIONS), ("sign", SIGNS), ("metric", METRICS)):
            value = getattr(self, name)
            if value not in allowed and not (name == "metric" and value is None):
                raise ValueError(f"{name} must be one of {', '.join(allowed)}: got {value!r}")
        for name in ("ig_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1: got {getattr(self, name)}")
        if not 0 < self.threshold < math.inf:
            raise ValueError(f"threshold must be above 0, and finite: got {self.threshold}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be from 0 to 2**32 - 1: got {self.seed}")


def attribute(
    model: Model,
    params: PyTree,
    graph: Graph,
    data: Batch,
    config: AttributionConfig,
    *,
    on_run: Callable[[float], None] = lambda share: None,
) -> Edges:
    """The effect of each edge by the method of `config`, positive where the edge helps.

    `on_run` hears the share that is done, of slow methods. Raises `ValueError` for a metric that
    the data lack, or that the method cannot use.
    """
    arguments = (model, params, graph, data)
    cutting = {"ablation": config.ablation, "batch_size": config.batch_size}
    measured = {"metric": config.metric or "answer", **cutting}
    match config.method:
        case "random":
            return random_scores(graph, key=jax.random.key(config.seed))
        case "magnitude":
            return magnitude(*arguments, **cutting)
        case "eap":
            return eap(*arguments, **measured)
        case "exact":
            return patch_edges(*arguments, **measured, on_run=on_run)
        case "acdc":
            return acdc(
                *arguments, threshold=config.threshold, metric=config.metric or "kl", **cutting,
                on_run=on_run,
            )  # fmt: skip
        case _:
            kind = config.method.removeprefix("eap-ig-")
            return eap_ig(*arguments, kind=kind, steps=config.ig_steps, **measured, on_run=on_run)


def natural_size(scores: Edges, config: AttributionConfig) -> int | None:
    """The edges that a method itself keeps, where it decides."""
    if config.method != "acdc":
        return None
    return int((np.asarray(scores.values) >= config.threshold).sum())
