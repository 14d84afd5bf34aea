"""Edges that are not live make no difference, whatever else is kept."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracr_models
from edgeprune_jax.circuits import Circuit, mask
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.models import tracr
from tracr_models.domain import full_domain
from tracr_models.ground_truth import load
from tracr_models.live import live_edges

HOME = Path(tracr_models.__file__).parent


@pytest.mark.parametrize("ablation, counts", [("zero", (15, 7)), ("interchange", (13, 5))])
@pytest.mark.parametrize("name", ["reverse", "xproportion"])
def test_circuits_that_differ_in_dead_edges_are_the_same_function(name, ablation, counts):
    loaded, batch = tracr.load(HOME / name), full_domain(HOME / name)
    live = live_edges(loaded.params, loaded.graph, ablation=ablation)
    assert live.sum() == counts[name == "xproportion"]
    assert (live >= load(HOME / name, ablation=ablation).kept).all()

    batch = jax.tree.map(jnp.asarray, batch)

    @jax.jit
    def run(kept):
        return masked_forward(
            loaded.model, loaded.params, batch.tokens, kept, ablation=ablation,
            corrupted_tokens=batch.corrupted, valid=batch.valid,
        )  # fmt: skip

    rng = np.random.default_rng(0)
    for _ in range(5):
        kept, other = rng.random((2, len(live))) < 0.7
        one, two = (
            run(mask(Circuit(loaded.graph, k))) for k in (kept, np.where(live, kept, other))
        )
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_an_edge_that_carries_something_is_live_though_it_is_not_needed():
    loaded = tracr.load(HOME / "reverse")
    live = Circuit(loaded.graph, live_edges(loaded.params, loaded.graph, ablation="zero"))
    extra = set(live - load(HOME / "reverse"))
    assert {writer for writer, _ in extra} == {"tok_embeds"} and len(extra) == 4
