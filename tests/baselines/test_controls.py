"""The controls: numbers drawn, and what an edge carries against what its reader receives."""

import jax
import numpy as np

from edgeprune_jax.baselines.controls import magnitude, random_scores


def test_random_scores_are_uniform_and_told_by_the_key(toy_case):
    graph = toy_case(6, 4, 2).graph
    first, second = (random_scores(graph, key=jax.random.key(seed)).values for seed in (0, 1))
    assert abs(float(first.mean()) - 0.5) < 0.05
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    np.testing.assert_array_equal(first, random_scores(graph, key=jax.random.key(0)).values)


def test_magnitude_is_the_share_of_the_readers_input(small, plain):
    case, graph = small.case, small.case.graph
    cut = plain.cut_values(case, "interchange")
    _, clean = plain.formula(case, np.ones(graph.n_edges), cut)
    expected = []
    for reader, length in zip(graph.readers, graph.row_lengths, strict=True):
        x = np.linalg.norm(sum(clean[writer] for writer in graph.writers[:length]), axis=-1)
        if reader.endswith((".q", ".k", ".v")) or reader == "resid_post":
            assert graph.writers[length - 1].startswith("m") or length == 1
        for writer in graph.writers[:length]:
            share = np.linalg.norm(clean[writer] - cut[writer], axis=-1) / x
            rows = zip(share, case.valid, strict=True)
            expected.append(np.mean([row[valid].mean() for row, valid in rows]))
    found = magnitude(case.model, case.params, graph, small.data, batch_size=2).values
    np.testing.assert_allclose(found, expected, rtol=1e-5)
