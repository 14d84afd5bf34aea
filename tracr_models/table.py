"""The table of all programs with their true circuits, from the truths that come with the package.

python -m tracr_models.table
"""

from edgeprune_jax.report.tables import Table, to_markdown
from tracr_models.entry import Program, find_entry
from tracr_models.ground_truth import ABLATIONS, HOME
from tracr_models.programs import PROGRAMS
from tracr_models.stored_truth import read, truth_file

HEADERS = ("program", "layers x heads", "output", "prompts", "edges", "zero", "interchange")


def table() -> Table:
    """A row for each program, criterion `decoded`. A star is a proof, a question mark a doubt."""
    return Table("Programs", HEADERS, [_row(*find_entry(name)) for name in PROGRAMS])


def _row(name: str, program: Program) -> list:
    truths = [
        read(HOME / name / truth_file(ablation, "decoded"), ablation=ablation, criterion="decoded")
        for ablation in ABLATIONS
    ]
    data, graph = truths[0].provenance["data"], truths[0].graph
    counts = []
    for truth in truths:
        certificate = truth.provenance["certificate"]
        mark = "*" if certificate["proof"] else "" if certificate["unique"] else "?"
        counts.append(f"{len(truth)}{mark}")
    return [
        f"`{name}`",
        f"{graph.layers} x {graph.heads}" + (", causal" if program.settings["causal"] else ""),
        "number" if data["classes"] is None else f"{data['classes']} classes",
        f"{data['examples']} of {len(set(program.vocabulary))} symbols",
        graph.n_edges,
        *counts,
    ]


if __name__ == "__main__":
    print(to_markdown(table()), end="")
