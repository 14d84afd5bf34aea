"""Edge Pruning recovers programs edge by edge, before any polish."""

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from edgeprune_jax.cli.tracr import polish_line
from tracr_models import ground_truth
from tracr_models.recovery import RECOVERY, Recovery, recover

ROOT = Path(str(resources.files("tracr_models")))


@pytest.mark.parametrize("program", ["reverse", "xproportion"])
@pytest.mark.parametrize("seed", [0, 5])
def test_the_true_circuit_is_found(program, seed):
    result = recover(ROOT / program, seed=seed)
    missing, extra = list(result.truth - result.found), list(result.found - result.truth)
    assert (missing, extra) == ([], [])
    assert result.exact and result.precision == result.recall == 1
    assert result.polished == result.truth and result.exact_polished
    assert result.evaluations <= 1 + 1.1 * len(result.found)
    # What polish alone is worth: a random circuit of that size does not become the true one.
    assert result.control != result.truth


def test_the_truth_is_not_used(monkeypatch):
    wrong = ground_truth.load(ROOT / "xproportion")
    nothing = replace(wrong, kept=np.zeros_like(wrong.kept))
    monkeypatch.setattr(ground_truth, "obtain", lambda *_, **__: nothing)
    result = recover(ROOT / "xproportion", seed=0)
    assert set(result.found) == set(result.polished) == set(wrong) and not result.exact


def test_one_preset_serves_all_programs_and_names_no_number_of_edges():
    assert RECOVERY.multiplier_rate == 0 and RECOVERY.price > 0


def test_a_row_holds_a_run_against_the_nearest_truth():
    truth = ground_truth.load(ROOT / "xproportion")
    kept = truth.kept.copy()
    kept[np.flatnonzero(kept)[0]] = False
    less = replace(truth, kept=kept)
    result = Recovery("p", 3, "zero", "decoded", less, truth, less, truth, 9, 1.26)
    assert list(result.row().items()) == [
        ("program", "p"), ("seed", 3), ("ablation", "zero"), ("criterion", "decoded"),
        ("edges", 32), ("true", 7), ("found", 6), ("precision", 1.0), ("recall", 6 / 7),
        ("exact", False), ("exact_polished", True), ("exact_control", False), ("evaluations", 9),
        ("certified", True), ("seconds", 1.3),
    ]  # fmt: skip
    rows = [result.row(), result._replace(polished=less, evaluations=12).row()]
    assert polish_line(rows) == (
        "polished: 1 of 2 exact, in 9 to 12 evaluations; "
        "random circuits, polished likewise: 0 exact"
    )
