"""What the masked forward pass refuses, by name, before any compute."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import BOTH

from edgeprune_jax.ablation import ablated_writes
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.graph import Edges, Graph, full


def without(names, **shape):
    return Graph(**{"layers": 2, "heads": 2, "kv_heads": 1} | shape, embeddings=names)


@pytest.mark.parametrize(
    "graph, options, message",
    [
        (without(("tok_embeds",), layers=3), {}, "the mask's graph has 3 layers, the model 2"),
        (
            without(("tok_embeds",), heads=1),
            {"ablation": "zero"},
            "the mask's graph has 1 heads, the model 2",
        ),
        (without(BOTH), {}, "the mask's graph has 2 embedding writers .*the model writes 1"),
        (without(("tok_embeds",)), {"corrupted_tokens": None}, "needs corrupted_tokens: got None"),
        (
            without(("tok_embeds",)),
            {"corrupted_tokens": jnp.zeros((1, 4), jnp.int32)},
            r"must have the shape of tokens, .*got \(1, 4\) and \(2, 4\)",
        ),
        (without(("tok_embeds",)), {"ablation": "nought"}, "interchange, zero, mean: got 'nought'"),
    ],
)
def test_what_does_not_fit_is_refused(toy_case, graph, options, message):
    unchecked = inspect.unwrap(masked_forward)  # the types of a test run refuse some of it first
    case = toy_case(2, 2, 1)
    tokens, corrupted, _ = case.on_device
    options = {"corrupted_tokens": corrupted} | options
    with pytest.raises(ValueError, match=message):
        unchecked(case.model, case.params, tokens, full(graph, 1.0), **options)


def test_a_mask_of_another_length_is_refused(toy_case):
    case = toy_case(2, 2, 1)
    tokens, corrupted, _ = case.on_device
    mask = Edges(jnp.ones(case.graph.n_edges - 1), case.graph)
    with pytest.raises(ValueError, match=rf"shape \({case.graph.n_edges},\), one per edge"):
        masked_forward(case.model, case.params, tokens, mask, corrupted_tokens=corrupted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"segment": 0}, "segment must be at least 1"),
        ({"outbox_dtype": "int8"}, "outbox_dtype must be a floating type"),
        ({"segment": -1}, "segment must be at least 1"),
        ({"valid": np.ones((1, 2), bool)}, "valid must have the shape of tokens"),
        ({"positions": np.zeros((1, 1), int)}, "positions must have a row"),
        ({"positions": np.zeros(3, int)}, "positions must have a row"),
    ],
)
def test_arguments_that_do_not_fit_the_prompts_are_refused(change, words, toy_case):
    case = toy_case(2, 2, 1)
    tokens, corrupted, _ = case.on_device
    change = jax.tree.map(lambda v: jnp.asarray(v) if isinstance(v, np.ndarray) else v, change)
    mask = Edges(jnp.ones(case.graph.n_edges), case.graph)
    with pytest.raises(ValueError, match=words):
        # Without the annotations' checks, which users do not have.
        inspect.unwrap(masked_forward)(
            case.model, case.params, tokens, mask, corrupted_tokens=corrupted, **change
        )


def test_an_ablation_of_other_prompts_or_layers_is_refused(toy_case):
    case = toy_case(2, 2, 1)
    tokens, corrupted, _ = case.on_device
    mask = Edges(jnp.ones(case.graph.n_edges), case.graph)
    writes = ablated_writes(case.model, case.params, corrupted)
    with pytest.raises(ValueError, match="layers, the ablation"):
        fewer = writes._replace(layers=writes.layers[:-1])
        masked_forward(case.model, case.params, tokens, mask, ablation=fewer)
    with pytest.raises(ValueError, match="must be of prompts of shape"):
        other = jnp.concatenate([corrupted] * 2)
        wider = ablated_writes(case.model, case.params, other)
        masked_forward(case.model, case.params, tokens, mask, ablation=wider)
