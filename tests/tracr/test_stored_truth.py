"""Truths that come with the package are whole; those of others are not believed."""

import json
import re
from itertools import product
from pathlib import Path

import pytest

import tracr_models
from edgeprune_jax.report.tables import to_markdown
from tracr_models import ground_truth
from tracr_models.programs import PROGRAMS
from tracr_models.stored_truth import minimal_circuits, read, truth_file
from tracr_models.table import table

HOME = Path(tracr_models.__file__).parent
KINDS = list(product(ground_truth.ABLATIONS, ground_truth.CRITERIA))


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_has_four_truths_that_say_what_their_names_do(name):
    files = {truth_file(*kind): kind for kind in KINDS}
    assert {path.name for path in (HOME / name).glob("truth*")} == set(files)
    for file, (ablation, criterion) in files.items():
        truth = read(HOME / name / file, ablation=ablation, criterion=criterion)
        for other in KINDS:
            if other != (ablation, criterion):
                with pytest.raises(ValueError, match="must be"):
                    read(HOME / name / file, ablation=other[0], criterion=other[1])
        assert truth.provenance["model"]["name"] == truth.provenance["task"] == name
        for circuit in ground_truth.true_circuits(truth):
            assert circuit.graph == truth.graph


def test_the_readme_has_the_table():
    assert to_markdown(table()).strip() in (HOME / "README.md").read_text()


@pytest.mark.parametrize("entry, value, message", [
    ("ablation", "interchange", "ablation must be zero: got 'interchange'"),
    ("settings", [], "settings must be an object: got"),
    ("data", None, "data must be an object"),
    ("data", {}, "data.examples has not the form"),
    ("certificate", {}, "sufficient has not the form of a truth's: got None"),
    ("certificate", {"sufficient": 1, "unique": True, "proof": True}, "sufficient has not"),
    ("certificate", {"sufficient": True, "unique": False, "proof": True}, "a proof must be"),
    ("certificate", {"sufficient": False, "unique": True, "proof": True}, "a proof must be"),
    ("certificate", {"sufficient": True, "unique": False, "proof": False}, "must be lists"),
])  # fmt: skip
def test_what_is_no_truth_is_refused_in_one_line(entry, value, message, tmp_path):
    content = json.loads((HOME / "xproportion" / truth_file("zero", "decoded")).read_text())
    content["provenance"][entry] = value
    (tmp_path / "truth.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="truth.json: .*" + re.escape(message)) as caught:
        read(tmp_path / "truth.json", ablation="zero", criterion="decoded")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "listed", [None, [], {}, [1], ["m0 -> m1"], [[1]], [["m0"]], [["m0 -> m0"]], [["a -> b -> c"]]]
)
def test_minimal_circuits_must_be_circuits(listed):
    truth = ground_truth.load(HOME / "xproportion")
    with pytest.raises(ValueError):
        minimal_circuits(truth.graph, listed)
