"""Figures of the cost of a step: against edges, against depth, and against the model of it."""

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt


def _number(point: str, option: str) -> int | None:
    words = point.split()
    return int(words[words.index(option) + 1]) if option in words else None


def _gpt2_of(rows: dict, option: str, default: int) -> list[tuple[int, dict]]:
    """The points in which only one option differs from GPT-2 small, by its value."""
    chosen = {default: rows["--shape gpt2"]}
    for point, row in rows.items():
        value = _number(point, option)
        if value is not None:
            chosen[value] = row
    return sorted(chosen.items())


def modelled_seconds(row: dict) -> float:
    """What the step would take if all its operations ran at the plain forward pass's rate."""
    return row["step_flops"]["total"] / row["plain_flops_per_second"]


def draw(rows: dict, folder: Path) -> None:
    """Writes cost.png and memory.png."""
    matplotlib.use("agg")
    depth, width = _gpt2_of(rows, "--layers", 12), _gpt2_of(rows, "--heads", 12)
    figure, (cost, share) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name, points, marker in (("depth", depth, "o"), ("width", width, "s")):
        edges = [row["edges"] for _, row in points]
        seconds = [row["seconds"]["step"]["median"] for _, row in points]
        (line,) = cost.plot(edges, seconds, marker, ls="-", label=f"measured, varying {name}")
        counted = [modelled_seconds(row) for _, row in points]
        cost.plot(edges, counted, "--", color=line.get_color(), label="counted at the plain rate")
    cost.set(xlabel="edges", ylabel="seconds a step", xscale="log", yscale="log")
    cost.legend()
    names = list(rows)
    share.barh(names, [row["step_over_plain"] for row in rows.values()], label="measured")
    share.plot(
        [row["step_flops"]["total"] / row["plain_flops"] for row in rows.values()], names, "k|",
        ms=12, label="operations alone",
    )  # fmt: skip
    share.invert_yaxis()
    share.set_xlabel("step over plain forward pass")
    share.legend()
    figure.savefig(folder / "cost.png", dpi=110)
    plt.close(figure)

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    layers = [n for n, _ in depth]
    for name, values, style in (
        ("temporaries, by XLA", [row["temporary_bytes"] for _, row in depth], "o-"),
        ("temporaries, counted", [row["modelled_bytes"]["temporary"] for _, row in depth], "--"),
        ("two outboxes", [row["two_outboxes_bytes"] for _, row in depth], ":"),
        ("resident at the peak", [row["peak_bytes"] for _, row in depth], "s-"),
    ):
        axes.plot(layers, [value / 1e9 for value in values], style, label=name)
    axes.set(xlabel="layers", ylabel="GB")
    axes.legend()
    figure.savefig(folder / "memory.png", dpi=110)
    plt.close(figure)
