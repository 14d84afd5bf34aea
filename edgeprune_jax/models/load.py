"""Models by name: the default model, a GGUF file, a folder, or a repository of the hub."""

from pathlib import Path

from edgeprune_jax.models.loaded import Loaded

DEFAULT = "smollm2-135m"
DTYPES = ("float32", "bfloat16", "float16")


def load_model(name_or_path: str | Path, *, dtype: str = "float32") -> Loaded:
    """Loads a model with its weights in `dtype`.

    `name_or_path` is `smollm2-135m`, a `.gguf` file of the Llama architecture, a folder in
    Hugging Face format or of a compiled Tracr program, or the name of a repository on the
    Hugging Face hub. Raises `FileNotFoundError` where there is nothing, and `ValueError` for
    what cannot be loaded faithfully.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be among {', '.join(DTYPES)}: got {dtype!r}")
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    # Each format is imported where it is met, with the packages that it alone needs.
    if name == DEFAULT:
        from edgeprune_jax.models import gguf

        return gguf.load(gguf.find_smollm2(), dtype=dtype, name=DEFAULT)
    if path.suffix == ".gguf":
        from edgeprune_jax.models import gguf

        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist")
        return gguf.load(path, dtype=dtype)

    from edgeprune_jax.models import huggingface

    if path.is_dir():
        if huggingface.read_json(path / "config.json").get("model_type") == "tracr":
            from edgeprune_jax.models import tracr

            return tracr.load(path)
        return huggingface.load(path, dtype=dtype)
    if path.exists():
        raise ValueError(f"a model is a folder or a .gguf file: got {path}")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"{path} does not exist")
    return huggingface.load(huggingface.download(name), dtype=dtype, name=name)
