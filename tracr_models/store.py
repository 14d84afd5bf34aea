"""Where compiled programs lie.

The paper's two come with the package, weights and all. Others are compiled, and checked against
the interpreter, every time they are asked for: a program of one's own may have changed. They go to
`$EDGEPRUNE_CACHE` or the platform's own place, each in a folder that is named after the hash of
what is in it: programs that share a name do not share a folder. Truths that are found
for them lie beside their weights (`ground_truth.obtain`).
"""

import os
import tempfile
from pathlib import Path

import platformdirs

from edgeprune_jax.models import stored
from tracr_models.entry import find_entry
from tracr_models.programs import PROGRAMS

HOME = Path(__file__).parent
FILES = ("config.json", "model.safetensors")


def compiled(name: str) -> Path:
    """The folder of a compiled program: `NAME`, `MODULE:NAME`, or itself a path to one.

    Raises `ValueError` where there is no such program, or the compiler cannot be trusted with it.
    """
    if (HOME / name / FILES[1]).is_file() and name in PROGRAMS:
        return HOME / name
    if (Path(name) / FILES[0]).is_file():
        return Path(name)
    own, program = find_entry(name)
    try:
        from tracr_models.compile import compile_program
    except ImportError as error:
        raise ValueError(
            f"{name} has to be compiled, which needs the package tracr-pypi: {error}"
        ) from None
    parent = cache()
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".draft-") as draft:
        compile_program(own, program, Path(draft) / "program")
        digest = stored.digest(Path(draft) / "program" / file for file in FILES)
        folder = parent / f"{own}-{digest.removeprefix('sha256:')[:12]}"
        if not folder.exists():
            os.replace(Path(draft) / "program", folder)
    return folder


def cache() -> Path:
    """The folder of compiled programs that do not come with the package."""
    return Path(os.environ.get("EDGEPRUNE_CACHE") or platformdirs.user_cache_dir("edgeprune")) / (
        "tracr"
    )
