"""Every circuit is measured by running it, on the same prompts, against the same controls."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edgeprune_jax.circuits import Circuit, mask
from edgeprune_jax.evaluation import (
    evaluate,
    mean_of_rows,
    measure_masks,
    measures,
    random_circuits,
    summarise,
    teacher_logits,
)
from edgeprune_jax.graph import Graph
from edgeprune_jax.tasks.batch import take

MEASURES = {"kl", "logit_difference", "accuracy", "exact_match"}


@pytest.fixture(scope="module")
def case(toy_case):
    """Five prompts, the last padded: never a whole number of batches here."""
    return toy_case(1, 2, 1, ("tok_embeds", "pos_embeds"), batch=5)


@pytest.fixture(scope="module")
def data(case, plain):
    return plain.as_batch(case)


@pytest.fixture(scope="module")
def circuit(case):
    return Circuit(case.graph, np.random.default_rng(0).random(case.graph.n_edges) < 0.6)


def log_softmax(x):
    x = x - x.max()
    return x - np.log(np.exp(x).sum())


def scored(logits, data):
    """Logits at the scored positions."""
    return np.take_along_axis(logits, data.positions[..., None], 1).astype(np.float32)


def by_hand(teacher, logits, data):
    """The measures of each example, from logits at every token, one number at a time."""
    rows = []
    for row in range(len(data)):
        found = []
        for a, position in enumerate(data.positions[row]):
            if not data.scored[row, a]:
                continue
            t, c = teacher[row, position], logits[row, position]
            p, q = log_softmax(t), log_softmax(c)
            target, foil = data.targets[row, a], data.foils[row, a]
            found.append({
                "kl": (np.exp(p) * (p - q)).sum(),
                "logit_difference": c[target] - c[foil] if foil >= 0 else np.nan,
                "accuracy": float(c.argmax() == target),
                "exact_match": float(c.argmax() == t.argmax()),
            })  # fmt: skip
        rows.append({name: np.mean([one[name] for one in found]) for name in found[0]})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def formula_logits(case, plain):
    """Logits at every token, of the full model and of circuits, by the formula in numpy."""
    cut = {name: plain.cut_values(case, name) for name in ("interchange", "zero", "mean")}

    def logits(kept, ablation="interchange"):
        return plain.formula(case, np.asarray(kept, float), cut[ablation])[0]

    return logits


@pytest.fixture(scope="module")
def table(case, data, circuit):
    return evaluate(
        case.model, case.params, {"mine": circuit}, data, n_random=3, seed=7, batch_size=2
    )


def close(found, expected):
    assert found.keys() == {"edges", *expected}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def means(found):
    return {name: values.mean() for name, values in found.items()}


def test_measures_are_those_taken_by_hand(case, plain):
    data = plain.as_batch(case)
    rng = np.random.default_rng(3)
    teacher, noise = rng.normal(size=(2, 5, 4, 5)).astype(np.float32) * 2
    logits = teacher + noise / 2
    data.targets[::2] = logits[np.arange(5)[:, None], data.positions].argmax(-1)[::2]
    data.foils[::2] = (data.targets[::2] + 1) % 5

    found = measures(
        *(jnp.asarray(scored(x, data)) for x in (teacher, logits)),
        jax.tree.map(jnp.asarray, data),
    )
    expected = by_hand(teacher, logits, data)
    assert found.keys() == expected.keys() == MEASURES
    assert 0 < expected["accuracy"].mean() < 1 and 0 < expected["exact_match"].mean() < 1
    for name in MEASURES:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_rows_come_in_order_and_say_their_size(table, case, circuit):
    assert list(table) == ["mine", "full", "empty", "random", "best random"]
    sizes = [row["edges"] for row in table.values()]
    assert sizes == [len(circuit), case.graph.n_edges, 0, len(circuit), len(circuit)]


def test_the_full_circuit_is_the_model(table):
    full = table["full"]
    assert abs(full["kl"]) < 1e-6 and full["exact_match"] == 1


def test_the_empty_circuit_is_the_corrupted_run(table, case, data, plain, formula_logits):
    ones, nothing = np.ones(case.graph.n_edges), dict.fromkeys(case.graph.writers, 0.0)
    corrupted, _ = plain.formula(case, ones, nothing, tokens=case.corrupted)
    close(table["empty"], means(by_hand(formula_logits(ones), corrupted, data)))
    assert table["empty"]["kl"] > 0.1


def test_a_circuit_is_measured_as_by_hand(table, case, data, circuit, formula_logits):
    ones = np.ones(case.graph.n_edges)
    expected = by_hand(formula_logits(ones), formula_logits(circuit.kept), data)
    close(table["mine"], means(expected))


def test_random_rows_are_the_mean_and_the_best_of_random_circuits(
    table, case, data, circuit, formula_logits
):
    teacher = formula_logits(np.ones(case.graph.n_edges))
    rows = [
        means(by_hand(teacher, formula_logits(one.kept), data))
        for one in random_circuits(case.graph, len(circuit), 3, seed=7)
    ]
    close(table["random"], {name: np.mean([row[name] for row in rows]) for name in rows[0]})
    close(table["best random"], min(rows, key=lambda row: row["kl"]))


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_other_ablations_are_measured_as_by_hand(case, data, circuit, formula_logits, ablation):
    teacher = formula_logits(np.ones(case.graph.n_edges))
    (found,) = measure_masks(
        case.model, case.params, [mask(circuit)], data, ablation=ablation,
        batch_size=2,
    )  # fmt: skip
    expected = by_hand(teacher, formula_logits(circuit.kept, ablation), data)
    for name in MEASURES:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_no_result_depends_on_the_batch_size(case, data, circuit, table):
    whole = evaluate(case.model, case.params, {"mine": circuit}, data, batch_size=8)
    for name, row in whole.items():
        assert row == pytest.approx(table[name], rel=1e-5, abs=1e-6)


def test_the_padding_of_the_last_batch_does_not_count(case, data):
    rng = np.random.default_rng(6)
    padded = teacher_logits(case.model, case.params, data, batch_size=8)
    assert padded.shape == (5, 2, 5)
    for _ in range(3):
        # The same shape, and other examples where the padding was: not a bit may differ.
        filled = take(data, np.concatenate([np.arange(5), rng.integers(0, 5, 3)]))
        filled.tokens[5:] = rng.integers(0, 5, filled.tokens[5:].shape)
        full = teacher_logits(case.model, case.params, filled, batch_size=8)
        assert not np.array_equal(full[5:], np.broadcast_to(full[4], full[5:].shape))
        np.testing.assert_array_equal(padded, full[:5])


def test_logits_of_other_batch_sizes_differ_by_rounding(case, data):
    one, many = (teacher_logits(case.model, case.params, data, batch_size=n) for n in (2, 8))
    # XLA orders the sums of another shape differently: float32 to the largest entry.
    np.testing.assert_allclose(
        many, one, rtol=0, atol=16 * np.finfo(np.float32).eps * abs(one).max()
    )


def test_a_number_is_measured_by_its_squared_error(case, data, circuit, formula_logits):
    params = case.params._replace(unembedding=case.params.unembedding[:, :1])
    table = evaluate(case.model, params, {"mine": circuit}, data, n_random=3, seed=7, batch_size=5)

    def error(one):
        """Of the first logit, which here is the only one."""
        teacher = formula_logits(np.ones(case.graph.n_edges))
        wrong = (formula_logits(one.kept) - teacher)[..., 0] ** 2
        wrong = np.take_along_axis(wrong, data.positions, 1) * data.scored
        return (wrong.sum(1) / data.scored.sum(1)).mean()

    random = [error(one) for one in random_circuits(case.graph, len(circuit), 3, seed=7)]
    close(table["mine"], {"squared_error": error(circuit)})
    close(table["best random"], {"squared_error": min(random)})


def test_without_a_foil_there_is_no_logit_difference(data):
    rng = np.random.default_rng(4)
    logits = jnp.asarray(rng.normal(size=(5, 2, 5)), jnp.float32)
    batch = jax.tree.map(jnp.asarray, replace(data, foils=np.full_like(data.foils, -1)))
    found = jax.tree.map(np.asarray, measures(logits, logits, batch))
    assert summarise(found).keys() == MEASURES - {"logit_difference"}


def test_a_summary_is_a_mean_over_examples():
    found = {"kl": np.array([1.0, 3.0]), "logit_difference": np.array([np.nan, np.nan])}
    assert summarise(found) == {"kl": 2.0}


def test_random_circuits_have_their_size_and_are_drawn_uniformly():
    graph = Graph(2, 2, 1, ("tok_embeds",))
    drawn = random_circuits(graph, 9, 2000, seed=1)
    assert {len(one) for one in drawn} == {9}
    n, share = len(drawn), 9 / graph.n_edges
    frequency = np.mean([one.kept for one in drawn], axis=0)
    assert np.abs(frequency - share).max() < 5 * np.sqrt(share * (1 - share) / n)
    assert drawn[:2] == random_circuits(graph, 9, 2, seed=1)
    assert drawn[0] != random_circuits(graph, 9, 1, seed=2)[0]


def test_an_evaluation_of_nothing_is_refused(case, data):
    with pytest.raises(ValueError, match="at least one circuit"):
        evaluate(case.model, case.params, {}, data)


def test_what_is_missing_in_one_place_is_not_missing_elsewhere(data):
    rng = np.random.default_rng(4)
    logits = jnp.asarray(rng.normal(size=(5, 2, 5)), jnp.float32)
    foils, scored = np.array(data.foils), np.ones_like(data.scored)
    foils[:], foils[0], foils[1, 0] = 1, -1, -1
    scored[1, 0] = 0
    targets = np.full_like(foils, 2)
    batch = replace(data, foils=foils, scored=scored, targets=targets)
    found = jax.tree.map(np.asarray, measures(logits, logits, jax.tree.map(jnp.asarray, batch)))
    by_hand = np.asarray(logits[..., 2] - logits[..., 1])
    expected = [np.nan, by_hand[1, 1], *by_hand[2:].mean(1)]
    np.testing.assert_allclose(found["logit_difference"], expected, rtol=1e-5)
    assert summarise(found)["logit_difference"] == pytest.approx(np.mean(expected[1:]), rel=1e-5)


def test_names_of_controls_and_circuits_of_another_graph_are_refused(case, data, circuit):
    with pytest.raises(ValueError, match="names a control"):
        evaluate(case.model, case.params, {"empty": circuit}, data)
    graph = replace(circuit.graph, layers=circuit.graph.layers + 1)
    other = random_circuits(graph, 1, 1, seed=0)[0]
    with pytest.raises(ValueError, match="must share one graph"):
        evaluate(case.model, case.params, {"a": circuit, "b": other}, data)


def test_a_measure_that_some_random_circuits_lack_is_the_mean_of_the_others():
    rows = [{"kl": 1.0}, {"kl": 2.0, "kendall_tau": 0.5}, {"kl": 6.0, "kendall_tau": 0.7}]
    assert mean_of_rows(rows) == pytest.approx({"kl": 3.0, "kendall_tau": 0.6})
