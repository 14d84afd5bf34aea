"""Checkpoints in Hugging Face format: a folder of `config.json`, safetensors and a tokenizer.

Only safetensors are read, and of them only what the devices of this process hold. The older
`.bin` files are pickles, and a pickle runs what it likes.
"""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from edgeprune_jax.models import gpt2, huggingface_config, llama, stored, tokenizer
from edgeprune_jax.models.loaded import Loaded, Shardings

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PLAIN = re.compile(r"\w[\w.-]*", re.ASCII)  # a file name: no folders, no way up
_FLOATS = ("F64", "F32", "F16", "BF16")
_BUFFERS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")  # constants, not weights


class Family(NamedTuple):
    """What a `model_type` stands for."""

    module: Any  # layout, build and graph
    config: Callable[[dict], Any]
    prefix: str  # of the names of all weights but the unembedding; base models leave it out


class _Held(NamedTuple):
    """A tensor in a file."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]


_LLAMA = Family(llama, huggingface_config.llama_config, "model.")
FAMILIES = MappingProxyType(
    {
        "llama": _LLAMA,
        "mistral": _LLAMA,
        "qwen2": _LLAMA,
        "gpt2": Family(gpt2, huggingface_config.gpt2_config, "transformer."),
    }
)


def load(
    folder: Path,
    *,
    dtype: str = "float32",
    name: str | None = None,
    shardings: Shardings | None = None,
) -> Loaded:
    """Loads a folder. Raises `ValueError`, naming the file and the field, where it cannot."""
    family, config = read_config(folder / "config.json")
    files, words = weight_files(folder), tokenizer.from_folder(folder)
    params = _read(files, family, config, dtype, str(folder), shardings)
    return Loaded(
        family.module.build(config),
        params,
        family.module.graph(config),
        words,
        name or folder.resolve().name,
        stored.digest(files),
    )


def read_config(path: Path, *, layers: int | None = None) -> tuple[Family, Any]:
    """The family of a `config.json` and the shape it gives, of `layers` layers where given.

    Raises `ValueError`, naming the file and the field, for what is not supported.
    """
    settings = read_json(path)
    kind = settings.get("model_type")
    if kind not in list(FAMILIES):  # a list, because what JSON holds need not be hashable
        raise ValueError(f"{path}: model_type must be among {', '.join(FAMILIES)}: got {kind!r}")
    family = FAMILIES[kind]
    try:
        config = family.config(settings)
        return family, config if layers is None else dataclasses.replace(config, layers=layers)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def download(name: str) -> Path:
    """The local copy of a repository of the hub, fetched if need be."""
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name,
                allow_patterns=["config.json", "tokenizer.json", "model*.safetensors", INDEX],
            )
        )
    except Exception as error:  # network, authorisation, names: the client has a type for each
        reason = str(error).strip().partition("\n")[0]
        raise FileNotFoundError(
            f"{name} is no file or folder here, and the Hugging Face hub did not give it "
            f"({reason}). Give the path of a folder with config.json and {SINGLE}"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a JSON object: got {type(found).__name__}")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in the order of their names."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX).get("weight_map")
        if not isinstance(index, dict) or not index:
            raise ValueError(f"{folder / INDEX}: weight_map must be an object of file names")
        for file in index.values():
            # A plain name, so that an index cannot point outside its folder.
            if not isinstance(file, str) or not _PLAIN.fullmatch(file):
                raise ValueError(f"{folder / INDEX}: weight_map must hold file names: got {file!r}")
        files = [folder / file for file in sorted(set(index.values()))]
        for path in files:
            if not path.is_file():
                raise FileNotFoundError(f"{path}, named in {INDEX}, does not exist")
        return files
    for pattern in ("*.bin", "*.pt", "*.pth"):
        for path in sorted(folder.glob(pattern)):
            raise ValueError(
                f"{path} is a pickle, which is never opened; rewrite it with transformers: "
                "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)"
            )
    raise FileNotFoundError(f"{folder} has neither {SINGLE} nor {INDEX}")


def _read(
    files: list[Path],
    family: Family,
    config: Any,
    dtype: str,
    source: str,
    shardings: Shardings | None,
) -> Any:
    where: dict[str, _Held] = {}
    for path in files:
        try:
            file = safe_open(path, "numpy")
        except SafetensorError as error:
            raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
        with file:
            for name in file.keys():
                if name in where:
                    raise ValueError(f"{path}: {name} is also in another file of the checkpoint")
                held = file.get_slice(name)
                where[name] = _Held(path, name, held.get_dtype(), tuple(held.get_shape()))
    if config.layers > len(where):  # before a description of so many layers fills the memory
        raise ValueError(f"{source}: {config.layers} layers, but only {len(where)} tensors")

    layout = family.module.layout(config)
    wanted = {leaf.name for leaf in jax.tree.leaves(layout)}
    if not any(name.startswith(family.prefix) for name in where):
        where = {
            name if name == "lm_head.weight" else family.prefix + name: place
            for name, place in where.items()
        }
    optional = {name for name in where if name.endswith(_BUFFERS) or name == "lm_head.weight"}
    for name in optional - wanted:
        del where[name]

    for name, held in where.items():
        if held.dtype not in _FLOATS:
            raise ValueError(
                f"{source}: {name} must be of type {', '.join(_FLOATS)}: got {held.dtype}"
            )

    def part(name: str, index: stored.Index) -> np.ndarray:
        # Opened for each part: the pages of an open file count as memory once they were read.
        with safe_open(where[name].path, "numpy") as file:
            return file.get_slice(where[name].name)[index]

    shapes = {name: held.shape for name, held in where.items()}
    return stored.read(
        layout, shapes, part, dtype=dtype, source=source,
        shardings=shardings and shardings(stored.abstract(layout, dtype=dtype)),
    )  # fmt: skip
