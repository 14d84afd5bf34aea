"""Checkpoints with recorded logits (experiments/make_model_fixtures.py), and edits of them."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from edgeprune_jax.models.load import load_model

FOLDER = Path(__file__).parent.parent / "fixtures" / "models"


@pytest.fixture(scope="session")
def recorded():
    """The folder of the recorded checkpoints."""
    return FOLDER


@pytest.fixture
def edit(tmp_path):
    """Copies a checkpoint with some settings or tensors changed; None removes one."""

    def edited(name, *, settings=None, tensors=None):
        folder = tmp_path / name
        shutil.copytree(FOLDER / name, folder, dirs_exist_ok=True)
        config = json.loads((folder / "config.json").read_text()) | (settings or {})
        kept = {key: value for key, value in config.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))
        weights = load_file(folder / "model.safetensors") | (tensors or {})
        kept = {key: value for key, value in weights.items() if value is not None}
        save_file(kept, folder / "model.safetensors")
        return folder

    return edited


@pytest.fixture(scope="session")
def smollm2():
    """The default model, where its package is installed."""
    try:
        return load_model("smollm2-135m")
    except FileNotFoundError as error:
        pytest.skip(str(error))
