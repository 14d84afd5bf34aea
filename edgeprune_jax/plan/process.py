"""Runs the compiler in a process of its own, with the environment that its device needs."""

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from edgeprune_jax.plan.request import Request
from edgeprune_jax.plan.topology import Topology, find_topology
from edgeprune_jax.sharding import TPU_ARGUMENTS

TPU, GPU = "libtpu", "jax_cuda13_plugin"  # modules that bring the compilers


def plan_step(request: Request) -> dict:
    """What `program.compile_step` finds.

    Raises `ValueError` for a compiler that is not installed, saying what to install; for a mesh
    that cannot split the model; and for a program that XLA cannot compile, with its message.
    """
    topology = find_topology(request.topology)
    run = subprocess.run(
        [sys.executable, "-m", "edgeprune_jax.plan.child"],
        input=json.dumps(dataclasses.asdict(request)),
        env=environment(topology),
        capture_output=True,
        text=True,
    )
    if run.returncode:
        raise ValueError(f"XLA cannot compile the step for {topology.name}: {_reason(run)}")
    found = json.loads(run.stdout)
    if "error" in found:
        raise ValueError(found["error"])
    return found


def environment(topology: Topology) -> dict[str, str]:
    """The variables that XLA's compiler for a topology reads, added to those of this process."""
    platform = topology.device.platform
    given = os.environ | {"JAX_PLATFORMS": "cpu"}
    flags = given.get("XLA_FLAGS", "")
    if platform == "cpu":
        return given | {"JAX_NUM_CPU_DEVICES": str(topology.devices)}
    if platform == "tpu":
        if importlib.util.find_spec(TPU) is None:
            raise ValueError(
                f"planning for {topology.name} needs libtpu: pip install 'edgeprune_jax[plan-tpu]'"
            )
        return given | {
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_ACCELERATOR_TYPE": "v5litepod-8",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_WORKER_ID": "0",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "LIBTPU_INIT_ARGS": given.get("LIBTPU_INIT_ARGS", TPU_ARGUMENTS),
        }
    ptxas = _ptxas()
    if importlib.util.find_spec(GPU) is None or ptxas is None:
        raise ValueError(
            f"planning for {topology.name} needs JAX's CUDA plugin and ptxas: "
            "pip install 'edgeprune_jax[plan-gpu]'"
        )
    return given | {
        # Autotuning would run kernels, and there is no device to run them on.
        "XLA_FLAGS": f"{flags} --xla_gpu_autotune_level=0",
        "PATH": os.pathsep.join([str(ptxas.parent), given.get("PATH", "")]),
    }


def _ptxas() -> Path | None:
    """The assembler: on the path, or where NVIDIA's Python package puts it."""
    if found := shutil.which("ptxas"):
        return Path(found)
    spec = importlib.util.find_spec("nvidia")
    places = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    return next((path for place in places for path in Path(place).glob("*/bin/ptxas")), None)


def _reason(run: subprocess.CompletedProcess) -> str:
    if run.returncode < 0:
        return f"the compiler stopped with signal {-run.returncode}: {run.stderr.strip()[-500:]}"
    lines = [line for line in run.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {run.returncode}"
