"""Edge Pruning recovers programs edge by edge, before any polish."""

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from tracr_models import ground_truth
from tracr_models.recovery import RECOVERY, recover

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
