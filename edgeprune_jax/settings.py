"""The settings of a pruning run, the defaults and the paper's."""

import dataclasses
import math
from dataclasses import dataclass

from edgeprune_jax.ablation import ABLATIONS
from edgeprune_jax.estimators import ESTIMATORS
from edgeprune_jax.objectives import DIVERGENCES, SCHEDULES, WITHOUT_GRADIENT

CONTROLS = ("multipliers", "price")


@dataclass(frozen=True)
class PruneConfig:
    """Settings of one run of Edge Pruning.

    The defaults were measured on SmolLM2-135M (experiments/LOG.md); `PAPER` holds the paper's.
    """

    target: float = 0.97
    """Sparsity of edges to reach, 1 - mean mask. Above 1 it only pushes."""
    steps: int = 300
    """Optimiser steps."""
    batch_size: int = 8
    """Prompt pairs in a step."""
    warmup: int = 150
    """Steps over which the target sparsity grows from `start` to `target`, or with control 'price'
    the price from `price` to `last_price`."""
    start: float = 0.8
    """Target sparsity of the first step, and the one that a warm start's gates have."""
    schedule: str = "linear"
    """Growth of the target: 'linear', or 'logarithmic' (linear in the log of the density)."""
    control: str = "multipliers"
    """What closes edges: Lagrange 'multipliers', which hold the sparsity at the target; or a
    'price' of an open edge that grows from `price` to `last_price`, whatever the target. The
    circuit then shrinks through all sizes, and all edges are ranked, by their log-alphas over the
    run and at its end."""
    gate_init: float = 2.0
    """Mean of the log-alphas at the start."""
    gate_init_std: float = 0.01
    """Standard deviation of the log-alphas at the start."""
    gate_max: float | None = None
    """Largest log-alpha of a gate. At 5 one mask in 700 cuts its edge; a larger one changes little,
    and has all the farther to fall before the edge can close."""
    gate_rate: float = 0.3
    """Peak learning rate of the gates of edges and nodes."""
    multiplier_rate: float = 1.0
    """Peak learning rate of the Lagrange multipliers, which ascend."""
    rate_warmup: int = 10
    """Steps of linear growth of the learning rates, which then fall linearly to 0."""
    weight_decay: float = 0.0
    """AdamW's decay of gates and multipliers. The reference has 0.01, torch's default."""
    clip: float = 1.0
    """Largest global norm of a gradient."""
    price: float = 9e-4
    """Cost of an open edge when the run starts: the linear multiplier starts at -price times the
    number of edges. With a multiplier_rate of 0 it stays there, and the sparsity is whatever
    this price buys."""
    last_price: float = 2e-2
    """Cost of an open edge after `warmup` steps, with control 'price'."""
    samples: int = 1
    """Masks drawn in a step; the loss is their mean."""
    own_masks: bool = False
    """Whether every example of a batch has a mask of its own: hardly more work, less noise in the
    gradient, and memory for as many masks as examples. The paper draws one for the batch."""
    replicas: int = 1
    """Sets of gates trained side by side on the same batches, of this seed and those after it: what
    does not depend on the gates is computed once. The circuit is that of their mean log-alphas."""
    bootstrap: bool = False
    """Whether every replica weighs the examples by how often it drew each of them, with
    replacement, so that replicas differ as if other prompts had been sampled too."""
    estimator: str = "pathwise"
    """Gradient of the expected loss: 'pathwise' through hard-concrete masks, or by the 'score'
    function from the losses of binary masks, of which it needs several."""
    hard_share: float = 0.0
    """Share of a batch drawn from the examples on which recent masks diverged most."""
    node_gates: bool = False
    """Whether writers have gates of their own, which scale all their edges."""
    node_target: float | None = None
    """Sparsity of nodes to reach; without it node gates are trained by the divergence alone."""
    divergence: str = "kl"
    """Distance from the full model: 'kl' of next-token distributions, 'squared' error, or 0 and 1
    for examples 'mistaken' for another answer, or 'moved' by more than 0.01 (objectives.py)."""
    floor: float = 0.0
    """Above 0, a divergence d counts as log(1 + d / floor), so that a rare failure counts too."""
    ablation: str = "interchange"
    """What a cut edge carries: 'interchange', 'mean' or 'zero'."""
    outbox_dtype: str | None = None
    """Of what writers wrote and its products with the mask: 'float32' or 'bfloat16', half the
    memory on devices that multiply in bfloat16. By default the model's own."""
    seed: int = 0
    """Seed of gates, masks and the order of the data."""

    def __post_init__(self):
        values = dataclasses.asdict(self)
        for name in (
            "steps", "batch_size", "samples", "replicas", "warmup", "rate_warmup", "seed",
        ):  # fmt: skip
            if not isinstance(values[name], int):
                raise ValueError(f"{name} must be a whole number: got {values[name]!r}")
        for name in ("steps", "batch_size", "samples", "replicas"):
            if values[name] < 1:
                raise ValueError(f"{name} must be at least 1: got {values[name]}")
        if not 0 <= self.seed <= 2**32 - self.replicas:
            raise ValueError(f"seed must be from 0 to 2**32 - {self.replicas}: got {self.seed}")
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} must be finite: got {value}")
        for name in (
            "warmup", "rate_warmup", "gate_rate", "multiplier_rate", "weight_decay",
            "gate_init_std", "floor",
        ):  # fmt: skip
            if values[name] < 0:
                raise ValueError(f"{name} must be 0 or more: got {values[name]}")
        if not 0 <= self.hard_share <= 1:
            raise ValueError(f"hard_share must be between 0 and 1: got {self.hard_share}")
        if self.clip <= 0:
            raise ValueError(f"clip must be above 0: got {self.clip}")
        if self.gate_max is not None and self.gate_max <= 0:
            raise ValueError(f"gate_max must be above 0: got {self.gate_max}")
        if self.ablation not in ABLATIONS:
            raise ValueError(
                f"ablation must be one of {', '.join(ABLATIONS)}: got {self.ablation!r}"
            )
        if self.divergence not in DIVERGENCES:
            raise ValueError(
                f"divergence must be one of {', '.join(DIVERGENCES)}: got {self.divergence!r}"
            )
        if self.estimator not in ESTIMATORS:
            raise ValueError(
                f"estimator must be one of {', '.join(ESTIMATORS)}: got {self.estimator!r}"
            )
        if self.estimator == "score" and self.samples < 2:
            raise ValueError(f"the score estimator needs 2 samples or more: got {self.samples}")
        if self.own_masks and self.estimator != "pathwise":
            raise ValueError(f"own_masks need the pathwise estimator: got {self.estimator!r}")
        if self.estimator == "pathwise" and self.divergence in WITHOUT_GRADIENT:
            raise ValueError(f"divergence {self.divergence!r} needs the score estimator")
        if self.bootstrap and self.replicas == 1:
            raise ValueError("bootstrap needs replicas: got 1")
        if self.hard_share and self.replicas > 1:
            raise ValueError(f"hard_share follows one set of gates: got {self.replicas} replicas")
        if self.outbox_dtype not in (None, "float32", "bfloat16"):
            raise ValueError(f"outbox_dtype must be float32 or bfloat16: got {self.outbox_dtype!r}")
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"schedule must be one of {', '.join(SCHEDULES)}: got {self.schedule!r}"
            )
        if self.schedule != "linear" and not (self.start < 1 and self.target < 1):
            raise ValueError(
                f"the {self.schedule} schedule needs a target below 1: got {self.target}"
            )
        if self.control not in CONTROLS:
            raise ValueError(f"control must be one of {', '.join(CONTROLS)}: got {self.control!r}")
        if self.control == "price" and not (self.price > 0 and self.last_price > 0):
            raise ValueError(
                f"control 'price' needs prices above 0: got {self.price} and {self.last_price}"
            )
        if self.node_target is not None and not self.node_gates:
            raise ValueError("node_target needs node_gates")


PAPER = PruneConfig(
    target=0.98, steps=3000, batch_size=32, warmup=2500, start=0.0, gate_init=10.0, price=0.0,
    gate_rate=0.8, multiplier_rate=0.8, rate_warmup=200, weight_decay=0.01, node_gates=True,
    seed=42,
)  # fmt: skip
"""The shipped settings for GPT-2 (reference facts: IOI, greater-than, gendered pronoun)."""

ANYTIME = PruneConfig(
    control="price", price=1e-3, last_price=6e-3, warmup=500, start=0.8, steps=800, batch_size=4,
    gate_rate=0.2, gate_max=4.0, own_masks=True,
)  # fmt: skip
"""One run for circuits of every size, best with a `warm_start`. Chosen on IOI in SmolLM2-135M."""
