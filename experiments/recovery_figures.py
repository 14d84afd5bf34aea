"""The figures of `recovery.md`.

    python experiments/recovery_figures.py

`gates.png` follows every gate of one program through two runs, the pathwise preset that this
library had at first and the present one; `variants.svg` draws `results/recovery/variants.json`.
About 3 minutes on two cores.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from recovery import RESULTS, VARIANTS

from edgeprune_jax.models import tracr
from edgeprune_jax.pruning import init, prune
from edgeprune_jax.settings import PruneConfig
from tracr_models import ground_truth
from tracr_models.domain import full_domain, logits
from tracr_models.recovery import RECOVERY
from tracr_models.store import compiled

TRUE, FALSE = "#1f77b4", "#c8c8c8"
FIRST = "pathwise, squared error"


@dataclass(frozen=True)
class Figures:
    """Draw the figures of the page on recovery."""

    program: str = "sort_freq"
    """The program whose gates are followed."""
    seed: int = 0
    """Seed of both runs."""


def trajectory(folder: Path, config: PruneConfig) -> np.ndarray:
    """Log-alphas of every edge after every step, S E."""
    loaded, data = tracr.load(folder), full_domain(folder)
    teacher = logits(loaded, data.tokens, data.valid, data.positions)
    state = init(loaded.graph, config, examples=len(data))
    steps = prune(loaded.model, loaded.params, data, jnp.asarray(teacher), config, state)
    return np.array([np.asarray(state.trainable.edges.values) for state, _ in steps])


def draw_gates(axes: Axes, values: np.ndarray, true: np.ndarray, title: str) -> None:
    steps = np.arange(1, len(values) + 1)
    axes.plot(steps, values[:, ~true], color=FALSE, linewidth=0.5)
    axes.plot(steps, values[:, true], color=TRUE, linewidth=1)
    axes.axhline(0, color="black", linewidth=0.5)
    lost, extra = int((values[-1, true] <= 0).sum()), int((values[-1, ~true] > 0).sum())
    axes.set_title(f"{title}\n{lost} of {true.sum()} true edges lost, {extra} too many", fontsize=9)
    axes.set_xlabel("step")


def draw_variants(axes: Axes, rows: list[dict]) -> None:
    names = [name for name in VARIANTS if any(row["variant"] == name for row in rows)]
    shares = [np.mean([row["exact"] for row in rows if row["variant"] == name]) for name in names]
    axes.barh(names, shares, color=TRUE)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of runs that recover the circuit exactly")


def main() -> None:
    options = tyro.cli(Figures)
    matplotlib.rcParams.update({"svg.hashsalt": "edgeprune", "font.size": 8})
    folder = compiled(options.program)
    true = ground_truth.obtain(folder, ablation="zero", criterion="decoded").kept
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, name, title in ((left, FIRST, "pathwise"), (right, "preset", "score function")):
        config = replace(RECOVERY, seed=options.seed, **VARIANTS[name])
        draw_gates(axes, trajectory(folder, config), true, f"{options.program}, {title}")
    left.set_ylabel("log_alpha (blue: true edges)")
    # As bitmaps the hundreds of lines take a tenth of the space.
    figure.savefig(RESULTS / "gates.png", dpi=110, metadata={"Software": None})

    figure = Figure(figsize=(7, 2.6), layout="constrained")
    rows = json.loads((RESULTS / "variants.json").read_text())["rows"]
    draw_variants(figure.subplots(), rows)
    figure.savefig(RESULTS / "variants.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
