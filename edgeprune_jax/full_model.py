"""Whether a model does a task at all: a circuit can explain no behaviour that is not there."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from edgeprune_jax import hosts
from edgeprune_jax.evaluation import measures, summarise, teacher_logits
from edgeprune_jax.stream import Model
from edgeprune_jax.tasks.batch import Batch, parts, take

AGAINST_ITSELF = {"kl", "exact_match", "squared_error", "kendall_tau"}  # perfect by definition
PREFERS = 0.6  # of the examples, at least: half is chance
RIGHT = 0.1  # of the answers, at least


class Scores(NamedTuple):
    """The means of a task's measures, and what they mean for a circuit."""

    means: dict[str, float]
    doubt: str | None  # why a circuit of this model would not explain the task


def score_model(model: Model, params: PyTree, data: Batch, *, batch_size: int = 32) -> Scores:
    """The full model's accuracy, logit difference and so on; `means` is empty for a numeric output.

    In doubt is a model that puts the right answer above the wrong one in less than 60 % of the
    examples, whose probability difference is not positive, or, without either, that is right in
    less than 10 %.
    """
    logits = teacher_logits(model, params, data, batch_size=batch_size)
    run, found = jax.jit(measures), []
    for chosen, count in parts(len(data), batch_size):
        one = run(logits[chosen], logits[chosen], take(data, chosen))
        found.append({name: values[:count] for name, values in hosts.fetch(one).items()})
    whole = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    means = {name: v for name, v in summarise(whole).items() if name not in AGAINST_ITSELF}
    return Scores(means, _doubt(whole, means))


def _doubt(whole: dict[str, np.ndarray], means: dict[str, float]) -> str | None:
    if "probability_difference" in means:
        bad = means["probability_difference"] <= 0
        return (
            "the model puts no more weight on the right choices than on the wrong" if bad else None
        )
    if "logit_difference" in means:
        differences = whole["logit_difference"]
        prefers = float((differences[~np.isnan(differences)] > 0).mean())
        if prefers < PREFERS:
            return (
                f"the model prefers the right answer to the wrong one in {prefers:.0%} of prompts"
            )
    elif means.get("accuracy", 1.0) < RIGHT:
        return f"the model is right in {means['accuracy']:.0%} of prompts"
    return None
