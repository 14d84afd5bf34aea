"""A model is told what it cannot do before anybody looks for its circuit."""

from dataclasses import replace

import numpy as np
import pytest

from edgeprune_jax.evaluation import teacher_logits
from edgeprune_jax.full_model import score_model


@pytest.fixture(scope="module")
def case(toy_case):
    return toy_case(1, 2, 1, ("tok_embeds", "pos_embeds"), batch=10)


@pytest.fixture(scope="module")
def scored(case, plain):
    """The data, with targets as the model ranks them: a row of `tokens`, best first."""
    data = plain.as_batch(case)
    logits = teacher_logits(case.model, case.params, data)
    return replace(data, scored=np.ones_like(data.scored)), logits.argsort(-1)[..., ::-1]


def test_a_model_that_does_the_task_raises_no_doubt(case, scored):
    data, ranked = scored
    data = replace(data, targets=ranked[..., 0], foils=ranked[..., 1])
    means, doubt = score_model(case.model, case.params, data, batch_size=4)
    logits = teacher_logits(case.model, case.params, data)
    best = np.sort(logits, axis=-1)
    assert means.keys() == {"accuracy", "logit_difference"} and means["accuracy"] == 1
    assert means["logit_difference"] == pytest.approx(
        (best[..., -1] - best[..., -2]).mean(), rel=1e-4
    )
    assert doubt is None


def test_a_model_that_does_not_is_doubted(case, scored):
    data, ranked = scored
    half = np.arange(10)[:, None] % 2 == 0
    data = replace(
        data, targets=np.where(half, ranked[..., 1], ranked[..., 3]), foils=ranked[..., 2]
    )
    means, doubt = score_model(case.model, case.params, data)
    assert means["accuracy"] == 0
    assert doubt == "the model prefers the right answer to the wrong one in 50% of prompts"
    without = replace(data, foils=np.full_like(data.foils, -1))
    means, doubt = score_model(case.model, case.params, without)
    assert means.keys() == {"accuracy"} and doubt == "the model is right in 0% of prompts"


def test_a_model_of_numbers_has_no_scores(case, plain):
    params = case.params._replace(unembedding=case.params.unembedding[:, :1])
    assert score_model(case.model, params, plain.as_batch(case)) == ({}, None)
