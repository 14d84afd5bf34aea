"""The paper's experiments on GPT-2 small: its settings, data sizes and figures (sections 4, 5).

Each script beside this one is a sweep over the paper's sparsity targets with its settings. What is
ours: prompts (the paper's tasks, our words), exact token alignment, one bisection over the edges
that exist, and a divergence over the whole vocabulary where the paper's greater-than has it over
the 100 years (both are reported). The paper took 2,756 s for one run on one H100 (IOI, 200 pairs).
"""

from pathlib import Path

import tyro
from sweep import Sweep, run
from sweep_results import Published

from edgeprune_jax.settings import PAPER


def reproduce(
    task: str,
    *,
    targets: tuple[float, ...],
    examples: int,
    test_examples: int,
    published: Published,
) -> None:
    """Runs a task from the command line, with the paper's values where nothing else is said."""
    name = task.replace("-", "_")
    paper = Sweep(
        tasks=(task,), model="gpt2", targets=targets, seeds=(PAPER.seed,), sparsities=(),
        examples=(examples,), test_examples=test_examples, config=PAPER,
        runs=Path("runs", f"{name}_gpt2"), results=Path("experiments/results", f"{name}_gpt2"),
    )  # fmt: skip
    run(tyro.cli(Sweep, default=paper), published)
