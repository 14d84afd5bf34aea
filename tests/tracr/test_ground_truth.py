"""The truth is the paper's, it is necessary and sufficient, and it does not rest on the engine."""

import json
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracr_models
from edgeprune_jax import circuits
from edgeprune_jax.models import tracr
from edgeprune_jax.tasks.batch import take
from tracr_models import certificate, ground_truth
from tracr_models.domain import every_pair, full_domain

HOME = Path(tracr_models.__file__).parent
PAPER = {
    "reverse": {
        ("tok_embeds", "a0.h0.v"), ("a0.h0", "m0"), ("tok_embeds", "m0"), ("m0", "m1"),
        ("tok_embeds", "m1"), ("pos_embeds", "m1"), ("m1", "m2"), ("m2", "a3.h0.q"),
        ("pos_embeds", "a3.h0.k"), ("tok_embeds", "a3.h0.v"), ("a3.h0", "resid_post"),
    },
    "xproportion": {
        ("tok_embeds", "m0"), ("m0", "a1.h0.v"), ("tok_embeds", "a1.h0.q"),
        ("pos_embeds", "a1.h0.q"), ("tok_embeds", "a1.h0.k"), ("pos_embeds", "a1.h0.k"),
        ("a1.h0", "resid_post"),
    },
}  # fmt: skip
names = pytest.mark.parametrize("name", sorted(PAPER))


@names
def test_the_truth_is_the_papers(name):
    assert set(ground_truth.load(HOME / name)) == PAPER[name]


@names
def test_the_truth_is_found_anew(name, tmp_path, capsys):
    for file in ("config.json", "model.safetensors"):
        (tmp_path / name).mkdir(exist_ok=True)
        shutil.copy(HOME / name / file, tmp_path / name)
    ground_truth.main(["--at", str(tmp_path)])
    assert f"{len(PAPER[name])} of " in capsys.readouterr().out
    assert (tmp_path / name / "truth.json").read_text() == (HOME / name / "truth.json").read_text()


def plain_loop(loaded, batch, kept):
    """Outputs under zero ablation, reader by reader as the definition says: x_r = sum m_rw y_w."""
    graph, model, params = loaded.graph, loaded.model, loaded.params
    batch = jax.tree.map(jnp.asarray, batch)
    writes = list(model.embed(params, batch.tokens))

    def read(reader):
        x = jnp.zeros(writes[0].shape)
        for writer, y in zip(graph.writers, writes, strict=False):
            if kept[graph.index(writer, reader)]:
                x = x + y
        return x

    for layer, block in enumerate(params.blocks):
        heads = range(graph.heads)
        q, k, v = (jnp.stack([read(f"a{layer}.h{h}.{s}") for h in heads]) for s in "qkv")
        writes += list(model.attend(block, q, k, v, batch.valid))
        writes.append(model.mlp(block, read(f"m{layer}")))
    x = jnp.take_along_axis(read("resid_post"), batch.positions[..., None], axis=1)
    return model.unembed(params, x)


@names
def test_the_true_circuit_is_faithful_and_no_edge_can_go(name):
    loaded, batch = tracr.load(HOME / name), full_domain(HOME / name)
    truth = ground_truth.load(HOME / name)

    def share_right(kept):
        outputs = plain_loop(loaded, batch, kept)
        if name == "reverse":
            return (outputs.argmax(-1) == batch.targets).all(-1).mean()
        return (abs(outputs - expected)[..., 0] < 0.05).all(-1).mean()

    expected = plain_loop(loaded, batch, np.ones_like(truth.kept))
    assert share_right(truth.kept) == 1
    for edge in np.flatnonzero(truth.kept):
        without = truth.kept.copy()
        without[edge] = False
        assert share_right(without) <= {"reverse": 0.12, "xproportion": 0.33}[name]


@names
def test_the_judge_agrees_with_the_plain_loop(name):
    loaded, batch = tracr.load(HOME / name), full_domain(HOME / name)
    truth, rng = ground_truth.load(HOME / name), np.random.default_rng(0)
    kept = np.stack([truth.kept | (rng.random(truth.kept.shape) < 0.5) for _ in range(4)])
    kept[2:, rng.choice(np.flatnonzero(truth.kept))] = False
    numerical = name == "xproportion"
    judge = ground_truth.make_judge(loaded, batch, ablation="zero", numerical=numerical)
    expected = plain_loop(loaded, batch, np.ones_like(truth.kept))
    verdicts = judge(kept)
    assert verdicts.any() and not verdicts.all()
    for circuit, verdict in zip(kept, verdicts, strict=True):
        outputs = plain_loop(loaded, batch, circuit)
        right = (abs(outputs - expected) <= 0.05 if numerical
                 else outputs.argmax(-1) == expected.argmax(-1))  # fmt: skip
        assert bool(right.all()) == verdict
    assert judge(kept[:0]).shape == (0,)


def necessary_edges(name, batch, **settings):
    """Found on some examples of a batch only: enough to tell, and a fraction of the time."""
    loaded, rows = tracr.load(HOME / name), np.random.default_rng(0).permutation(len(batch))[:32]
    judge = ground_truth.make_judge(loaded, take(batch, rows), **settings)
    return circuits.Circuit(loaded.graph, ~judge(~np.eye(loaded.graph.n_edges, dtype=bool)))


def test_without_its_bos_position_xproportion_has_five_true_edges():
    batch = full_domain(HOME / "xproportion")
    batch = replace(batch, scored=batch.scored * (batch.positions > 0))
    found = necessary_edges("xproportion", batch, ablation="zero", numerical=True)
    assert len(found) == 5 and set(found) < PAPER["xproportion"]


def test_interchange_leaves_reverse_two_true_edges():
    pairs = every_pair(full_domain(HOME / "reverse"))
    found = necessary_edges("reverse", pairs, ablation="interchange", numerical=False)
    assert set(found) == {("tok_embeds", "a3.h0.v"), ("a3.h0", "resid_post")}


@pytest.mark.parametrize("file, old, new", [
    ("config.json", b'"bos": true', b'"bos": false'),
    ("truth.json", b'"digest": "sha256:', b'"digest": "sha256:0'),
])  # fmt: skip
def test_the_truth_of_other_weights_or_prompts_is_refused(file, old, new, tmp_path):
    folder = shutil.copytree(HOME / "xproportion", tmp_path / "xproportion")
    content = (folder / file).read_bytes()
    assert old in content
    (folder / file).write_bytes(content.replace(old, new))
    with pytest.raises(ValueError, match=r"truth\.json is not of these weights and this domain"):
        ground_truth.load(folder)


@pytest.mark.parametrize("domain", [None, {"shortest": 1}, {"shortest": 1, "longest": 2, "bos": 1}])
def test_a_domain_that_does_not_fit_is_refused(domain, tmp_path):
    folder = shutil.copytree(HOME / "xproportion", tmp_path / "xproportion")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "domain": domain}))
    with pytest.raises(ValueError, match="domain must have integers"):
        full_domain(folder)


def test_another_ablation_is_refused():
    with pytest.raises(ValueError, match="must be among .* got 'mean'"):
        ground_truth.find(HOME / "reverse", ablation="mean")


def test_all_proper_subsets_are_tried_where_there_are_few():
    necessary = np.array([True, False, True, True])
    subsets, which = certificate.proper_subsets(necessary, seed=0)
    expected = {(a, 0, b, c) for a, b, c in product((0, 1), repeat=3)} - {(1, 0, 1, 1)}
    assert which == "all" and {tuple(row) for row in subsets.astype(int)} == expected


def test_sampled_circuits_lack_a_necessary_edge():
    necessary = np.arange(40) < 20
    subsets, which = certificate.proper_subsets(necessary, seed=0)
    assert "random" in which and len(subsets) == 20 + 190 + 1140 + certificate.DRAWS
    assert not subsets[:, 20:].any() and not subsets[:, :20].all(-1).any()
    others = certificate.lacking_one(necessary, seed=0)
    assert others[:, 20:].any() and not others[:, :20].all(-1).any()


def test_two_writers_that_cancel_cost_the_certificate():
    def judge(kept):  # edges 1 and 2 cancel: both or neither
        return kept[:, 0] & (kept[:, 1] == kept[:, 2])

    found = certificate.certify(judge, np.array([True, True, True, False]), seed=0)
    assert found["sufficient"] and not found["unique"]
    assert found["proper_subsets"] == {"which": "all", "tried": 7, "faithful": 1, "smallest": 1}
    assert certificate.certify(judge, np.array([True, True, False, True]), seed=0) == {
        "sufficient": False, "unique": False,
    }  # fmt: skip
    empty = certificate.certify(lambda kept: np.ones(len(kept), bool), np.zeros(3, bool), seed=0)
    assert empty["unique"] and empty["lacking_a_necessary_edge"]["tried"] == 0


@names
def test_the_domain_is_whole_and_every_symbol_is_replaced(name):
    config, batch = tracr.read_config(HOME / name), full_domain(HOME / name)
    length = {"reverse": 3, "xproportion": 4}[name]
    count = len(config.symbols) ** length
    assert len(batch) == len({tuple(row) for row in batch.tokens.tolist()}) == count
    assert (batch.tokens[:, 0] == config.bos).all() and (batch.corrupted[:, 0] == config.bos).all()
    assert (batch.tokens[:, 1:] != batch.corrupted[:, 1:]).all()
    assert np.isin(batch.corrupted[:, 1:], config.symbols).all()
    assert batch.positions[0].tolist() == list(range(0 if name == "xproportion" else 1, length + 1))
    assert (batch.scored == 1).all() and (batch.foils == -1).all()
    if name == "reverse":  # ids of symbols and of classes are the same here
        np.testing.assert_array_equal(batch.targets, batch.tokens[:, :0:-1])
    else:
        assert (batch.targets == -1).all()


def test_pairs_are_all_ordered_ones():
    pairs = every_pair(full_domain(HOME / "reverse"))
    both = {(*a, *b) for a, b in zip(pairs.tokens.tolist(), pairs.corrupted.tolist(), strict=True)}
    assert len(pairs) == len(both) == 27 * 26
    assert (pairs.tokens != pairs.corrupted).any(-1).all()
    with pytest.raises(ValueError, match="1 to 1048576 pairs: got 0"):
        every_pair(take(pairs, slice(1)))
