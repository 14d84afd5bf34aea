"""What an attribution attributes: how well a circuit does, one number per example.

All are oriented alike, more is better: an edge that the model needs has a positive effect, whatever
the metric. So KL and the task loss come with their signs turned.

Axes: B examples, A scored positions, V vocabulary.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from edgeprune_jax.measures.ordered import choice_logits, probability_difference
from edgeprune_jax.objectives import kl, mean_scored, squared_error
from edgeprune_jax.tasks.batch import Batch


def answer_score(logits: Float[Array, "B A V"], batch: Batch) -> Float[Array, " B"]:
    """The target's logit minus the foil's, or its log-probability without a foil.

    With ordered choices it is their probability difference; of a model that outputs one number,
    that number.
    """
    if batch.choices is not None:
        return probability_difference(choice_logits(logits, batch), batch.pivots)
    if logits.shape[-1] == 1:
        return mean_scored(logits[..., 0].astype(jnp.float32), batch.scored)
    difference = _of(logits, batch.targets) - _of(logits, batch.foils)
    log_probability = _of(jax.nn.log_softmax(logits.astype(jnp.float32)), batch.targets)
    return mean_scored(jnp.where(batch.foils >= 0, difference, log_probability), batch.scored)


def _of(values: Float[Array, "B A V"], tokens: Array) -> Float[Array, "B A"]:
    index = jnp.maximum(tokens, 0)[..., None]
    return jnp.take_along_axis(values.astype(jnp.float32), index, axis=-1)[..., 0]


def _logit_difference(teacher, logits, batch):
    return mean_scored(_of(logits, batch.targets) - _of(logits, batch.foils), batch.scored)


def _loss(teacher, logits, batch):
    log_probability = jax.nn.log_softmax(logits.astype(jnp.float32))
    return mean_scored(_of(log_probability, batch.targets), batch.scored)


METRICS: dict[str, Callable[..., Array]] = {  # teacher, logits, batch -> "B"
    "answer": lambda teacher, logits, batch: answer_score(logits, batch),
    "logit-difference": _logit_difference,
    "probability-difference": lambda teacher, logits, batch: probability_difference(
        choice_logits(logits, batch), batch.pivots
    ),
    "loss": _loss,
    "kl": lambda teacher, logits, batch: -kl(teacher, logits, batch.scored),
    "squared": lambda teacher, logits, batch: -squared_error(teacher, logits, batch.scored),
}
FLAT_AT_THE_MODEL = ("kl", "squared")  # largest where the circuit is the model: no gradient


def check_metric(metric: str, data: Batch, outputs: int) -> None:
    """Raises `ValueError` where the data, or a model of so many outputs, have no such metric."""
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}: got {metric!r}")
    if metric == "probability-difference" and data.choices is None:
        raise ValueError("metric 'probability-difference' needs a task with ordered choices")
    scored = np.asarray(data.scored) > 0
    for name, field in (("logit-difference", "foils"), ("logit-difference", "targets"),
                        ("loss", "targets")):  # fmt: skip
        missing = (scored & (np.asarray(getattr(data, field)) < 0)).any(axis=1)
        if metric == name and missing.any():
            raise ValueError(f"metric {name!r} needs {field}: example {missing.argmax()} has none")
    if outputs == 1 and metric not in ("answer", "squared"):
        raise ValueError(f"metric {metric!r} needs logits: the model outputs one number")
