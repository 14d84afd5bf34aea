"""Details of a circuit: means, intervals, tails, errors and random rivals, by hand and by scipy."""

import json

import numpy as np
import pytest
import scipy.stats

from edgeprune_jax.evaluation import Measured, Row
from edgeprune_jax.measures.bootstrap import RESAMPLES
from edgeprune_jax.measures.details import agreement, details, faithfulness, overview

N = 40


def found(seed, shift=0.0):
    """Measures of 40 examples; some have no logit difference."""
    rng = np.random.default_rng(seed)
    return {
        "kl": rng.exponential(1 + shift, N).astype(np.float32),
        "logit_difference": np.where(np.arange(N) % 7, rng.normal(shift, 1, N), np.nan),
        "accuracy": (rng.random(N) < 0.7).astype(np.float32),
        "exact_match": (rng.random(N) < 0.8).astype(np.float32),
    }


@pytest.fixture(scope="module")
def measured():
    rows = {
        "mine": Row(9, found(0, 1.0)),
        "full": Row(20, found(1, 4.0)),
        "empty": Row(0, found(2)),
    }
    return Measured(rows, [Row(9, found(seed, 2.0)) for seed in (3, 4, 5)])


@pytest.fixture(scope="module")
def entry(measured):
    return details(measured, seed=8, worst=3)["mine"]


def scipys(data, statistic):
    found = scipy.stats.bootstrap(
        data, statistic, method="percentile", paired=True, n_resamples=RESAMPLES,
        rng=np.random.default_rng(8),
    )  # fmt: skip
    return list(found.confidence_interval)


def test_only_circuits_are_detailed_and_the_result_is_json(measured):
    found = details(measured)
    assert list(found) == ["mine"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_means_and_intervals_are_scipys(entry, measured):
    for name, values in measured.rows["mine"].found.items():
        values = values[~np.isnan(values)].astype(float)
        assert entry[name]["mean"] == pytest.approx(values.mean())
        assert entry[name]["interval"] == pytest.approx(scipys((values,), np.mean), rel=1e-9)


def test_the_tail_lists_the_worst_examples_by_row(entry, measured):
    kl = measured.rows["mine"].found["kl"]
    assert entry["kl"]["quantiles"]["1"] == kl.max()
    assert entry["kl"]["quantiles"]["0.5"] == pytest.approx(np.median(kl))
    rows = [one["row"] for one in entry["kl"]["worst"]]
    assert rows == list(np.argsort(kl)[::-1][:3])
    assert [one["value"] for one in entry["kl"]["worst"]] == [kl[row] for row in rows]


def test_faithfulness_is_the_ratio_of_differences_with_scipys_interval(entry, measured):
    of = [measured.rows[name].found["accuracy"] for name in ("mine", "full", "empty")]
    columns = [values.astype(float) for values in of]

    def ratio(c, f, e, axis=-1):
        return (c.mean(axis) - e.mean(axis)) / (f.mean(axis) - e.mean(axis))

    assert entry["faithfulness"]["accuracy"]["value"] == pytest.approx(ratio(*columns))
    difference = [
        measured.rows[name].found["logit_difference"] for name in ("mine", "full", "empty")
    ]
    columns = [values[~np.isnan(values)] for values in difference]
    found = entry["faithfulness"]["logit_difference"]
    assert found["value"] == pytest.approx(ratio(*columns))
    assert found["interval"] == pytest.approx(scipys(tuple(columns), ratio), rel=1e-9)


def test_the_model_is_faithful_the_empty_circuit_is_not_and_a_flat_measure_says_nothing():
    full, empty = np.array([3.0, 5.0]), np.array([1.0, 0.0])
    assert faithfulness(full, full, empty, seed=0)["value"] == 1
    assert faithfulness(empty, full, empty, seed=0)["value"] == 0
    assert faithfulness(2 * full - empty, full, empty, seed=0)["value"] == 2
    assert faithfulness(full, full, full, seed=0) == {"value": None, "interval": None}


def test_agreement_tells_errors_from_successes():
    full = {"accuracy": np.array([1, 1, 1, 0, 0, 0.5])}
    circuit = {"exact_match": np.array([1, 1, 0, 0, 1, 0.5])}
    found = agreement(circuit, full, seed=0)
    assert found["successes"]["examples"] == found["errors"]["examples"] == 3
    assert found["successes"]["mean"] == pytest.approx(2 / 3)
    assert found["errors"]["mean"] == pytest.approx(1.5 / 3)
    right = {"accuracy": np.ones(6)}
    assert agreement(circuit, right, seed=0)["errors"] == {
        "examples": 0, "mean": None, "interval": None,
    }  # fmt: skip


def test_random_circuits_are_counted_and_the_best_is_compared_prompt_by_prompt(entry, measured):
    mine = measured.rows["mine"].found["kl"].astype(float)
    random = [row.found["kl"].astype(float) for row in measured.random]
    best = min(random, key=np.mean)
    found = entry["random"]
    assert found["circuits"] == 3 and found["edges"] == 9
    assert found["closer"] == sum(one.mean() < mine.mean() for one in random)
    margin = found["margin_of_best"]
    assert margin["mean"] == pytest.approx((best - mine).mean())
    assert margin["interval"] == pytest.approx(scipys((best - mine,), np.mean), rel=1e-6)


def test_a_model_of_numbers_has_its_squared_error_detailed():
    row = {"squared_error": np.arange(4.0)}
    rows = {name: Row(1, row) for name in ("mine", "full", "empty")}
    found = details(Measured(rows, []))["mine"]
    assert found["squared_error"]["worst"][0] == {"row": 3, "value": 3.0}
    assert found["faithfulness"] == {} and "agreement" not in found and "random" not in found


def test_a_failed_example_leaves_no_mean_and_is_the_worst():
    """But a measure that an example may lack is the mean of the others."""
    rows = {
        name: Row(9, {key: np.array(values) for key, values in found(seed).items()})
        for seed, name in enumerate(("mine", "full", "empty"))
    }
    rows["mine"].found["kl"][5] = np.nan
    entry = json.loads(json.dumps(details(Measured(rows, []), worst=2), allow_nan=False))["mine"]
    assert entry["kl"]["mean"] is entry["kl"]["interval"] is None
    assert set(entry["kl"]["quantiles"].values()) == {None}
    assert entry["kl"]["worst"][0] == {"row": 5, "value": None}
    assert entry["kl"]["worst"][1]["value"] == np.nanmax(rows["mine"].found["kl"])
    assert entry["logit_difference"]["mean"] is not None
    assert overview({"mine": entry})["mine"]["kl"] is None
