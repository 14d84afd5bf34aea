"""EAP-IG is EAP's formula with gradients taken along a path, here by a plain loop of its own."""

import numpy as np
import pytest

from edgeprune_jax.baselines.eap import eap
from edgeprune_jax.baselines.integrated import eap_ig, sublayers

STEP = 1e-5


def sublayer(name):
    """The nodes that write at the same place: the embeddings, a layer's heads, an MLP."""
    return name.split(".")[0] if name[0] in "am" else "embeddings"


def forward(case, cut, share, mixed, added):
    """Logits of the plain model with one sublayer mixed with `cut`, vectors added to inputs."""
    graph, parts, params = case.graph, case.parts, case.params64

    def mix(name, y):
        return share * y + (1 - share) * cut[name] if sublayer(name) == mixed else y

    written = {n: mix(n, y) for n, y in parts.embed(params, case.tokens).items()}

    def read(reader):
        return sum(written.values()) + added.get(reader, 0)

    for layer, block in enumerate(params.blocks):
        heads = {}
        for h in range(graph.heads):
            g = h * graph.kv_heads // graph.heads
            x = (read(f"a{layer}.h{h}.q"), read(f"a{layer}.h{g}.k"), read(f"a{layer}.h{g}.v"))
            name = f"a{layer}.h{h}"
            heads[name] = mix(name, parts.head(block, h, g, *x, case.valid))
        written |= heads
        written[f"m{layer}"] = mix(f"m{layer}", parts.mlp(block, read(f"m{layer}")))
    return parts.unembed(params, read("resid_post")), written


def by_hand(small, plain, kind, steps, metric):
    """The scores of all edges, each from two runs of the loop above for each run of the path."""
    case, data = small.case, small.data
    cut = plain.cut_values(case, "interchange")
    teacher, clean = forward(case, cut, 1, None, {})

    def mean(*run):
        return small.score(forward(case, cut, *run)[0], data, metric, teacher).mean()

    scores = []
    for writer, reader in case.graph.edges():
        change = STEP * (clean[writer] - cut[writer])
        mixed = "embeddings" if kind == "inputs" else sublayer(writer)
        slopes = [
            mean(k / steps, mixed, {reader: change}) - mean(k / steps, mixed, {reader: -change})
            for k in range(1, steps + 1)
        ]
        scores.append(np.mean(slopes) / (2 * STEP))
    return np.array(scores)


@pytest.mark.parametrize("kind, metric", [("inputs", "kl"), ("activations", "answer")])
def test_scores_are_those_of_a_plain_loop(small, plain, kind, metric):
    case = small.case
    expected = by_hand(small, plain, kind, 3, metric)
    found = eap_ig(
        case.model, case.params, case.graph, small.data, kind=kind, steps=3, metric=metric,
        batch_size=2,
    ).values  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.abs(expected).max() > 1e-3


def test_one_step_is_eap(small):
    case = small.case
    arguments = (case.model, case.params, case.graph, small.data)
    expected = eap(*arguments).values
    for kind in ("inputs", "activations"):
        found = eap_ig(*arguments, kind=kind, steps=1).values
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_every_writer_is_in_one_sublayer(toy_case):
    for names in (("tok_embeds", "pos_embeds"), ()):
        graph = toy_case(3, 4, 2, ("tok_embeds", "pos_embeds"), graph_names=names).graph
        found = np.array(sublayers(graph))
        assert len(found) == 6 + bool(names)
        np.testing.assert_array_equal(found.sum(axis=0), 1)


@pytest.mark.parametrize(
    "wrong, words", [({"kind": "weights"}, "path must be"), ({"steps": 0}, "at least 1")]
)
def test_a_path_that_is_none_is_refused(small, wrong, words):
    case = small.case
    with pytest.raises(ValueError, match=words):
        eap_ig(case.model, case.params, case.graph, small.data, **wrong)
