"""Peak memory of the host while a checkpoint is loaded into its shards.

    python experiments/load_memory.py               (2 cores, 2.2 GB of disk and memory, 2 minutes)

Writes a random checkpoint in Hugging Face format (TinyLlama's shape, bfloat16, four files), and
loads it in a process of its own, onto one device and onto simulated meshes of eight. The peak is
the process's resident memory (VmHWM: pages of open files count), less what it was before and less
the parts that its devices hold. It must stay below twice the largest tensor.
Writes experiments/results/load_memory.json.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import sweep_results
import tyro
from safetensors.numpy import save_file

from edgeprune_jax import atomic, provenance
from edgeprune_jax.models import huggingface, llama
from edgeprune_jax.models.load import load_model
from edgeprune_jax.sharding import MeshShape, make_mesh, weight_shardings

RESULTS = Path("experiments/results/load_memory.json")
FILES = 4
CONFIG = {
    "model_type": "llama", "num_hidden_layers": 22, "num_attention_heads": 32,
    "num_key_value_heads": 4, "hidden_size": 2048, "intermediate_size": 5632,
    "vocab_size": 32000, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
}  # fmt: skip
CASES = {
    "one device": MeshShape(),
    "model 8": MeshShape(model=8),
    "data 2, model 2, fsdp 2": MeshShape(2, 2, 2),
}


@dataclass(frozen=True)
class Options:
    folder: Path | None = None
    """Where the checkpoint is written, and removed; by default in the folder of temporary files."""
    out: Path = RESULTS
    """File to write."""


def write_checkpoint(folder: Path) -> None:
    """Random weights, one file after the other."""
    rng = np.random.default_rng(0)
    leaves = jax.tree.leaves(llama.layout(huggingface.FAMILIES["llama"].config(CONFIG)))
    where = {}
    for number in range(FILES):
        file = f"model-{number + 1:05}-of-{FILES:05}.safetensors"
        part = leaves[number * len(leaves) // FILES : (number + 1) * len(leaves) // FILES]
        save_file(
            {
                leaf.name: rng.random(leaf.shape, np.float32).astype(ml_dtypes.bfloat16)
                for leaf in part
            },
            folder / file,
        )
        where |= {leaf.name: file for leaf in part}
    (folder / huggingface.INDEX).write_text(json.dumps({"weight_map": where}))
    (folder / "config.json").write_text(json.dumps(CONFIG))


def resident() -> dict[str, int]:
    """Resident memory now (VmRSS) and at its highest (VmHWM), in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    entries = dict(line.split(":", 1) for line in lines)
    return {name: int(entries[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")}


def measure(folder: str, case: str) -> None:
    """Loads the checkpoint in this process, and prints what it took."""
    jax.config.update("jax_num_cpu_devices", CASES[case].devices)
    mesh = make_mesh(CASES[case])
    jax.block_until_ready(jax.device_put(np.zeros(1 << 20, np.float32)))
    Path("/proc/self/clear_refs").write_text("5")  # the highest memory is from now on
    before, begun = resident()["VmRSS"], time.perf_counter()
    loaded = load_model(
        folder, dtype="bfloat16", shardings=lambda shapes: weight_shardings(shapes, mesh)
    )
    seconds = time.perf_counter() - begun
    leaves = jax.tree.leaves(loaded.params)
    parts = [shard.data for leaf in leaves for shard in leaf.addressable_shards]
    # Simulated devices share the parts that are equal.
    held = sum({part.unsafe_buffer_pointer(): part.nbytes for part in parts}.values())
    largest = max(leaf.nbytes for leaf in leaves)
    beyond = resident()["VmHWM"] - before - held
    print(json.dumps({
        "shards_bytes": held, "largest_tensor_bytes": largest, "beyond_shards_bytes": beyond,
        "beyond_per_largest_tensor": round(beyond / largest, 3), "seconds": round(seconds, 1),
    }))  # fmt: skip


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_checkpoint(Path(folder))
        files = sorted(Path(folder).glob("*.safetensors"))
        record = {"checkpoint_bytes": sum(path.stat().st_size for path in files), "cases": {}}
        for case in CASES:
            child = subprocess.run(
                [sys.executable, __file__, folder, case], check=True, stdout=subprocess.PIPE,
                text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"},
            )  # fmt: skip
            record["cases"][case] = json.loads(child.stdout)
            print(case, child.stdout, end="", flush=True)
            assert record["cases"][case]["beyond_per_largest_tensor"] < 2, case
    found = provenance.collect(command=sweep_results.command(), devices=["cpu"]) | record
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(options.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[2] in CASES:
        measure(*sys.argv[1:])
    else:
        main(tyro.cli(Options))
