"""Models by name: the default model, a GGUF file, a folder, or a repository of the hub."""

from pathlib import Path

from edgeprune_jax.models.loaded import Loaded, Shardings

DEFAULT = "smollm2-135m"
DTYPES = ("float32", "bfloat16", "float16")


def load_model(
    name_or_path: str | Path, *, dtype: str = "float32", shardings: Shardings | None = None
) -> Loaded:
    """Loads a model with its weights in `dtype`, each part straight to the device it belongs to.

    `name_or_path` is `smollm2-135m`, a `.gguf` file of the Llama architecture, a folder in
    Hugging Face format or of a compiled Tracr program, or the name of a repository on the
    Hugging Face hub. `shardings` turns the shapes of the parameters into where they go
    (`lambda shapes: weight_shardings(shapes, mesh)`); by default it is one device.

    Raises `FileNotFoundError` where there is nothing, and `ValueError` for what cannot be
    loaded faithfully.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be among {', '.join(DTYPES)}: got {dtype!r}")
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    # Each format is imported where it is met, with the packages that it alone needs.
    if name == DEFAULT:
        from edgeprune_jax.models import gguf

        return gguf.load(gguf.find_smollm2(), dtype=dtype, name=DEFAULT, shardings=shardings)
    if path.suffix == ".gguf":
        from edgeprune_jax.models import gguf

        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist")
        return gguf.load(path, dtype=dtype, shardings=shardings)

    from edgeprune_jax.models import huggingface

    if path.is_dir():
        if huggingface.read_json(path / "config.json").get("model_type") == "tracr":
            from edgeprune_jax.models import tracr

            return tracr.load(path)
        return huggingface.load(path, dtype=dtype, shardings=shardings)
    if path.exists():
        raise ValueError(f"a model is a folder or a .gguf file: got {path}")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"{path} does not exist")
    folder = huggingface.download(name)
    return huggingface.load(folder, dtype=dtype, name=name, shardings=shardings)
