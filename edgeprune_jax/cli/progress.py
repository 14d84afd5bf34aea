"""A progress bar with the time left, and the latest metrics beside it."""

from rich import progress
from rich.console import Console


class Progress:
    """Shows the rows that a run logs, within 80 columns. Use it in a `with`."""

    def __init__(self, console: Console, title: str, steps: int):
        self.bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=10),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[state]}"),
            console=console,
        )
        self.task = self.bar.add_task(title, total=steps, state="compiling")

    def show(self, row: dict) -> None:
        state = f"div {row['divergence']:.3f}  sparsity {row['sparsity']:.3f}"
        self.bar.update(self.task, completed=row["step"], state=state)

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(self, *_) -> None:
        self.bar.stop()
