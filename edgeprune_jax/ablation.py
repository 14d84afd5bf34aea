"""What a cut edge carries instead of its writer's output.

Interchange ablation takes it from a corrupted prompt, mean ablation from the mean over reference
prompts, zero ablation takes nothing. A mean is taken over a data set once (`settle`), so that no
result depends on how examples fall into batches.

Axes: E embedding writers, B batch, T tokens, D residual width.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from edgeprune_jax.stream import LayerWrites, Model, Writes, all_valid, plain_run
from edgeprune_jax.tasks.batch import Batch

ABLATIONS = ("interchange", "zero", "mean")
SETTLE_EXAMPLES = 256


def ablated_writes(
    model: Model,
    params: PyTree,
    tokens: Int[Array, "B T"],
    ablation: str = "interchange",
    *,
    valid: Bool[Array, "B T"] | None = None,
) -> Writes:
    """What cut edges carry, from the reference prompts `tokens`.

    Interchange: each writer's output, token by token. Mean: its mean over all valid tokens of
    all prompts, one vector per writer. Zero: nothing. Broadcasts against a run's own writes.
    """
    if ablation not in ABLATIONS:
        raise ValueError(f"ablation must be one of {', '.join(ABLATIONS)}: got {ablation!r}")
    if ablation == "zero":
        embeds = jax.eval_shape(model.embed, params, tokens)
        nothing = jnp.zeros((1, 1, embeds.shape[-1]), embeds.dtype)
        return Writes(nothing[None], (LayerWrites(nothing[None], nothing),) * len(params.blocks))
    _, writes = plain_run(model, params, tokens, valid=valid)
    if ablation == "interchange":
        return writes
    weight = all_valid(tokens, valid)[..., None]

    def mean(y):
        total = jnp.sum(y, (-3, -2), jnp.float32, keepdims=True, where=weight)
        return (total / weight.sum()).astype(y.dtype)

    return jax.tree.map(mean, writes)


def writes_for(model: Model, params: PyTree, batch: Batch, ablation: str | Writes) -> Writes:
    """What the cut edges of one batch carry: as settled, or from its corrupted prompts."""
    if isinstance(ablation, Writes):
        return ablation
    return ablated_writes(model, params, batch.corrupted, ablation, valid=batch.valid)


def settle(model: Model, params: PyTree, data: Batch, ablation: str) -> str | Writes:
    """An ablation that is ready for every batch: means are taken here, the others wait.

    The means are over the corrupted prompts of the first 256 examples.
    """
    if ablation != "mean":
        return ablation
    reference = jax.tree.map(lambda leaf: leaf[:SETTLE_EXAMPLES], data)
    run = jax.jit(ablated_writes, static_argnames=("model", "ablation"))
    return run(model, params, reference.corrupted, "mean", valid=reference.valid)
