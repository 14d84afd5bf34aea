"""The peak resident memory of a process that runs only the training step, three times.

python experiments/bench/peak.py --batch 8        prints one number, bytes
"""

import sys
from pathlib import Path

import jax
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.timing import peak_resident_bytes
from bench.work import Work, build, step


def main() -> None:
    work = tyro.cli(Work)
    run = step(build(work), work).run
    for _ in range(3):
        jax.block_until_ready(run())
    print(peak_resident_bytes())


if __name__ == "__main__":
    main()
