"""A model small enough for loops over all its edges, and the metric written a second time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def score(logits, data, metric="answer", teacher=None):
    """A metric of each example, from logits at every token, one number at a time."""
    found = []
    for row, logit in enumerate(np.asarray(logits, np.float64)):
        values = []
        for a, position in enumerate(data.positions[row]):
            target, foil = data.targets[row, a], data.foils[row, a]
            if not data.scored[row, a]:
                continue
            log_p = log_softmax(logit[position])
            if metric == "kl":
                reference = log_softmax(np.asarray(teacher, np.float64)[row, position])
                values.append((np.exp(reference) * (log_p - reference)).sum())
            elif metric == "loss" or foil < 0:
                values.append(log_p[target])
            else:
                values.append(logit[position, target] - logit[position, foil])
        found.append(np.mean(values))
    return np.array(found)


class Small(NamedTuple):
    """A toy model, three prompts of it, and what the tests loop with."""

    case: Any
    data: Any
    run: Callable  # kept edges -> logits
    score: Callable = score

    def mean(self, mask, metric="answer"):
        """The metric's mean when edges are masked, by the formula."""
        ones = np.ones(self.case.graph.n_edges)
        return self.score(self.run(mask), self.data, metric, self.run(ones)).mean()


@pytest.fixture(scope="session")
def small(toy_case, plain):
    """Two layers, grouped heads; the last prompt is padded and has no foil."""
    case = toy_case(2, 2, 1, batch=3)
    data = plain.as_batch(case)
    data.targets[1], data.foils[1] = data.foils[0], data.targets[0]
    data.foils[-1] = -1
    cut = plain.cut_values(case, "interchange")
    return Small(case, data, lambda mask: plain.formula(case, mask, cut)[0])
