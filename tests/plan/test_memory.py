"""The memory that a plan says a step needs is the memory that the step takes."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune_jax.plan.process import environment
from edgeprune_jax.plan.request import Request
from edgeprune_jax.plan.topology import find_topology

RUN = Path(__file__).with_name("peak_memory.py")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures as Linux does")
@pytest.mark.parametrize("devices", [1, 4])
def test_a_step_takes_the_memory_that_was_planned(devices):
    request = Request(
        "gpt2", f"cpu:{devices}", batch=8, length=24, layers=4, dtype="float32", data=devices
    )
    run = subprocess.run(
        [sys.executable, RUN],
        input=json.dumps(dataclasses.asdict(request)),
        env=environment(find_topology(request.topology)),
        capture_output=True,
        text=True,
        check=True,
    )
    planned, measured = json.loads(run.stdout)
    assert measured == pytest.approx(planned, rel=0.1)
