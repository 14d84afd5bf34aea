"""The truth is the paper's, it is necessary and sufficient, and it does not rest on the engine."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracr_models
from edgeprune_jax import circuit_json, circuits
from edgeprune_jax.models import tracr
from edgeprune_jax.tasks.batch import take
from tracr_models import ground_truth
from tracr_models.domain import MAX_PAIRS, every_pair, full_domain
from tracr_models.judge import TOLERANCES, make_judge
from tracr_models.live import live_edges
from tracr_models.programs import PROGRAMS

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
    options = [] if name == "xproportion" else ["--ablation", "zero", "--criterion", "decoded"]
    ground_truth.main([str(tmp_path / name), *options])
    assert f"zero, decoded: {len(PAPER[name])} of " in capsys.readouterr().out
    found = list((tmp_path / name).glob("truth_*.json"))
    assert len(found) == (1 if options else 4)
    for path in found:
        assert path.read_text() == (HOME / name / path.name).read_text()


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
@pytest.mark.parametrize("criterion", ground_truth.CRITERIA)
def test_the_judge_agrees_with_the_plain_loop(name, criterion):
    loaded, batch = tracr.load(HOME / name), full_domain(HOME / name)
    truth, rng = ground_truth.load(HOME / name), np.random.default_rng(0)
    kept = np.stack([truth.kept | (rng.random(truth.kept.shape) < 0.5) for _ in range(4)])
    kept[2:, rng.choice(np.flatnonzero(truth.kept))] = False
    live = live_edges(loaded.params, loaded.graph, ablation="zero")
    judge, necessary = make_judge(loaded, batch, ablation="zero", criterion=criterion, live=live)
    np.testing.assert_array_equal(np.flatnonzero(live)[necessary], np.flatnonzero(truth.kept))
    expected = plain_loop(loaded, batch, np.ones_like(truth.kept))
    verdicts = judge(kept[:, live])
    assert verdicts.any() and not verdicts.all()
    for circuit, verdict in zip(kept, verdicts, strict=True):
        outputs = plain_loop(loaded, batch, circuit)
        right = abs(outputs - expected).max(-1) <= TOLERANCES[criterion]
        if name == "reverse" and criterion == "decoded":
            right = outputs.argmax(-1) == expected.argmax(-1)
        assert bool(right.all()) == verdict
    assert judge(kept[:0, live]).shape == (0,)


def necessary_edges(name, batch, ablation):
    """Found on some examples of a batch only: enough to tell, and a fraction of the time."""
    loaded, rows = tracr.load(HOME / name), np.random.default_rng(0).permutation(len(batch))[:32]
    live = live_edges(loaded.params, loaded.graph, ablation=ablation)
    _, necessary = make_judge(
        loaded, take(batch, rows), ablation=ablation, criterion="decoded", live=live
    )
    kept = np.zeros(len(live), bool)
    kept[live] = necessary
    return circuits.Circuit(loaded.graph, kept)


def test_without_its_bos_position_xproportion_has_five_true_edges():
    batch = full_domain(HOME / "xproportion")
    batch = replace(batch, scored=batch.scored * (batch.positions > 0))
    found = necessary_edges("xproportion", batch, "zero")
    assert len(found) == 5 and set(found) < PAPER["xproportion"]


def test_interchange_leaves_reverse_two_true_edges():
    pairs = every_pair(full_domain(HOME / "reverse"))
    found = necessary_edges("reverse", pairs, "interchange")
    assert set(found) == {("tok_embeds", "a3.h0.v"), ("a3.h0", "resid_post")}
    assert found == ground_truth.load(HOME / "reverse", ablation="interchange")


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_called_a_proof_was_judged_on_the_whole_domain(name):
    symbols = len(set(PROGRAMS[name][1]))
    for path in sorted((HOME / name).glob("truth_*.json")):
        said = circuit_json.load(path).provenance
        data, certificate = said["data"], said["certificate"]
        lengths = range(data["shortest"], data["longest"] + 1)
        prompts = [symbols**length for length in lengths]
        pairs = [count * (count - 1) for count in prompts]
        whole = sum(prompts if said["ablation"] == "zero" else pairs)
        assert data["examples"] == whole or not certificate["proof"], path.name
        assert data["examples"] in (whole, MAX_PAIRS)


@pytest.mark.parametrize("most, proof", [(27 * 26, True), (27 * 26 - 1, False)])
def test_a_proof_takes_all_pairs(most, proof, monkeypatch):
    monkeypatch.setattr(ground_truth, "MAX_PAIRS", 100)
    monkeypatch.setattr(ground_truth, "MAX_PROVED", most)
    truth = ground_truth.find(HOME / "reverse", ablation="interchange")
    assert truth.provenance["data"]["examples"] == (most if proof else 100)
    assert truth.provenance["certificate"]["unique"]
    assert truth.provenance["certificate"]["proof"] == proof


FILE = ground_truth.truth_file("zero", "decoded")


@pytest.mark.parametrize("file, old, new", [
    ("config.json", b'"bos": true', b'"bos": false'),
    (FILE, b'"digest": "sha256:', b'"digest": "sha256:0'),
    (FILE, b'"tolerance": 0.05', b'"tolerance": 0.5'),
    (FILE, b'"data": {', b'"data": [],"other": {'),
    (FILE, b'"seed": 0', b'"seed": 1'),
    (FILE, b'"ablation": "zero"', b'"ablation": "interchange"'),
    (FILE, b'"unique": true', b'"unique": 1'),
])  # fmt: skip
def test_the_truth_of_other_weights_or_prompts_is_found_anew(file, old, new, tmp_path):
    folder = shutil.copytree(HOME / "xproportion", tmp_path / "xproportion")
    content = (folder / file).read_bytes()
    assert old in content
    (folder / file).write_bytes(content.replace(old, new))
    with pytest.raises(ValueError, match=FILE):
        ground_truth.load(folder)
    truth = ground_truth.obtain(folder)
    assert len(truth) == (5 if file == "config.json" else 7)
    assert ground_truth.load(folder) == truth


def test_a_folder_without_truths_has_those_of_the_package(tmp_path):
    folder = shutil.copytree(
        HOME / "reverse", tmp_path / "other", ignore=shutil.ignore_patterns("truth*")
    )
    assert set(ground_truth.obtain(folder)) == PAPER["reverse"]
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("domain", [None, {"shortest": 1}, {"shortest": 1, "longest": 2, "bos": 1}])
def test_a_domain_that_does_not_fit_is_refused(domain, tmp_path):
    folder = shutil.copytree(HOME / "xproportion", tmp_path / "xproportion")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "domain": domain}))
    with pytest.raises(ValueError, match="domain must have integers"):
        full_domain(folder)


@pytest.mark.parametrize("longest", [6, 129, 10**12])
def test_a_domain_beyond_the_program_is_refused_without_counting_it(longest, tmp_path):
    folder = shutil.copytree(HOME / "xproportion", tmp_path / "xproportion")
    config = json.loads((folder / "config.json").read_text())
    config["domain"]["longest"] = longest
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"<= max_seq_len = 5 must hold: got 4 and {longest}"):
        full_domain(folder)


@pytest.mark.parametrize("settings", [{"ablation": "mean"}, {"criterion": "logits"}])
def test_another_ablation_or_criterion_is_refused(settings):
    for function in (ground_truth.find, ground_truth.load):
        with pytest.raises(ValueError, match="must be among .* got '(mean|logits)'"):
            function(HOME / "reverse", **settings)


def test_where_the_truth_is_not_unique_the_minimal_circuits_stand_for_it():
    truth = ground_truth.load(HOME / "xproportion")
    one, other, *_ = np.flatnonzero(truth.kept)
    listed = [[f"{w} -> {r}" for w, r in truth - drop(truth, gone)] for gone in (one, other)]
    doubtful = {"unique": False, "minimal_circuits": listed}
    doubtful = replace(truth, provenance={**truth.provenance, "certificate": doubtful})
    assert ground_truth.true_circuits(truth) == [truth]
    assert ground_truth.nearest(drop(truth, one), truth) == truth
    assert not ground_truth.certified(doubtful)
    assert len(ground_truth.true_circuits(doubtful)) == 2
    for circuit in ground_truth.true_circuits(doubtful):
        assert len(circuit) == 1 and ground_truth.nearest(circuit, doubtful) == circuit


def drop(circuit, edge):
    kept = circuit.kept.copy()
    kept[edge] = False
    return circuits.Circuit(circuit.graph, kept)


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
    batch = full_domain(HOME / "reverse")
    short = replace(batch, valid=batch.valid & (np.arange(4) < 3))
    mixed = jax.tree.map(lambda *leaves: np.concatenate(leaves)[::2], batch, short)
    for rows, count in ((batch, 27 * 26), (mixed, 14 * 13 + 13 * 12)):
        pairs = every_pair(rows)
        both = {(*a, sum(v), *b) for a, v, b in zip(
            pairs.tokens.tolist(), pairs.valid.tolist(), pairs.corrupted.tolist(), strict=True
        )}  # fmt: skip
        assert len(pairs) == len(both) == count
        assert (pairs.tokens != pairs.corrupted).any(-1).all()
        lengths = {
            tuple(t): v for t, v in zip(rows.tokens.tolist(), rows.valid.sum(-1), strict=True)
        }
        assert all(lengths[tuple(t)] == lengths[tuple(c)] for t, c in zip(
            pairs.tokens.tolist(), pairs.corrupted.tolist(), strict=True
        ))  # fmt: skip
    with pytest.raises(ValueError, match="two prompts of equal length: got 1 in all"):
        every_pair(take(pairs, slice(1)))


def test_of_many_pairs_some_are_drawn_once_each_and_alike():
    batch = full_domain(HOME / "reverse")
    some, again, other = (every_pair(batch, most=100, seed=seed) for seed in (0, 0, 1))
    pairs = [np.hstack([drawn.tokens, drawn.corrupted]) for drawn in (some, again, other)]
    assert len(np.unique(pairs[0], axis=0)) == len(some) == 100
    np.testing.assert_array_equal(pairs[0], pairs[1])
    assert (pairs[0] != pairs[2]).any()
