"""One task asked in two ways, one circuit for each: what do they share? The paper's case study.

    python experiments/boolean_codellama.py codellama-13b    (eight accelerators, see launch/)
    python experiments/boolean_codellama.py smollm2-135m     (two cores, about half an hour)

A circuit is pruned on the prompts of each style and judged, as is the intersection of the two, on
unseen prompts of both. Paper, CodeLlama-13B-Instruct and boolean expressions: 1,041 edges from the
instruction (accuracy 79 % with instructions, 75 % with examples; the model 82 % and 89 %), 1,464
from the examples (76 % and 87 %), and the 653 that both have 73 % and 68 %. SmolLM2-135M can do no
boolean expressions (LOG.md), so there the task is IOI, bare and behind an instruction.

Ours has the token embedding as a writer, 3,877,661 edges where the paper has 3,872,820, and prompts
of our own words. Everything is resumable: a killed command goes on from its last checkpoint, and
what is done is not repeated. To the folder of results go the circuits, their training curves, all
measures (`study.json`), and a page with a table and a figure.
"""

import dataclasses
import hashlib
import json
import shutil
import sys
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import boolean_results
import numpy as np
import sweep_results
import tyro
from jax.sharding import Mesh

from edgeprune_jax import atomic, circuit_json, hosts, sharding
from edgeprune_jax.circuits import Circuit
from edgeprune_jax.cli.inputs import find_data, origin
from edgeprune_jax.cli.several import together
from edgeprune_jax.evaluation import measure_circuits, table
from edgeprune_jax.full_model import score_model
from edgeprune_jax.measures.details import details
from edgeprune_jax.models.load import DEFAULT, load_model
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.run import check, claim, discrete, run_pruning
from edgeprune_jax.settings import PAPER, PruneConfig
from edgeprune_jax.sharding import MeshShape
from edgeprune_jax.tasks.batch import Batch, digest, take

SCORED_EXAMPLES = 128
BOTH = "both"  # the intersection


@dataclass(frozen=True)
class Case:
    """A model, a task in two styles, and how to prune."""

    tasks: tuple[str, str]
    """The task in one style of prompt and in the other, by name; or files, as docs/data.md says."""
    lengths: tuple[int, int]
    """Tokens of the longest prompts, which memory was planned for; longer ones are refused."""
    config: PruneConfig
    """Settings of the method."""
    model: str
    """Model: a name, a file or a folder."""
    dtype: str = "float32"
    """Of the weights and activations."""
    mesh: MeshShape = field(default_factory=MeshShape)
    """Devices to split the model and the batches over."""
    edges: int | None = None
    """Edges of each circuit; without it the gates decide."""
    examples: int = 400
    """Prompt pairs to prune on."""
    test_examples: int = 400
    """Unseen prompt pairs of each style to judge on."""
    test_batch: int = 32
    """Prompts judged at a time."""
    random_circuits: int = 5
    """Random circuits, as large as the first style's."""
    runs: Path = Path("runs/boolean")
    """Folder of the runs."""
    results: Path = Path("experiments/results/boolean")
    """Folder of the circuits, measures, table and figure."""


CASES = {
    "codellama-13b": (
        "Boolean expressions with the paper's settings",
        Case(
            tasks=("boolean-instruction", "boolean-few-shot"), lengths=(64, 72),
            model="codellama/CodeLlama-13b-Instruct-hf", dtype="bfloat16",
            mesh=MeshShape(model=8), examples=3840, test_batch=8,
            config=dataclasses.replace(
                PAPER, target=1.2, steps=6000, warmup=5500, multiplier_rate=0.4
            ),
            runs=Path("runs/boolean_codellama-13b"),
            results=Path("experiments/results/boolean_codellama-13b"),
        ),
    ),
    "smollm2-135m": (
        "Indirect object identification, bare and behind an instruction",
        Case(
            tasks=("ioi-instruction", "ioi"), lengths=(48, 32), model=DEFAULT,
            config=PruneConfig(target=0.96, steps=200, batch_size=4, warmup=100), edges=2826,
            test_examples=200,
            runs=Path("runs/boolean_smollm2-135m"),
            results=Path("experiments/results/boolean_smollm2-135m"),
        ),
    ),
}  # fmt: skip


def load(case: Case) -> tuple[Loaded, Mesh | None]:
    """The model, each weight straight to its devices, and the mesh of these, None for one."""
    mesh = sharding.whole_mesh(case.mesh)
    if mesh is None:
        return load_model(case.model, dtype=case.dtype), None
    where = partial(sharding.weight_shardings, mesh=mesh)
    return load_model(case.model, dtype=case.dtype, shardings=where), mesh


def prompts(case: Case, loaded: Loaded, task: str, *, split: str, n: int) -> Batch:
    """Prompt pairs of a style. Raises `ValueError` where one is longer than planned."""
    found = find_data(loaded, task, split=split, n=n, seed=case.config.seed).batch
    planned, length = dict(zip(case.tasks, case.lengths, strict=True))[task], found.tokens.shape[1]
    if length > planned:
        raise ValueError(f"{task} has prompts of {length} tokens: {planned} are planned for")
    return found


def prune(case: Case, loaded: Loaded, mesh: Mesh | None, task: str) -> Circuit:
    """The circuit of a style's training prompts, also written to the results."""
    config, folder = case.config, case.runs / label(task)
    train = prompts(case, loaded, task, split="train", n=case.examples)
    check(loaded, train, config)
    said = {
        "task": task,
        "data": {"seed": config.seed, "n_train": len(train), "split": "train"},
        "settings": dataclasses.asdict(config),
    }
    model = {"name": loaded.name, "digest": loaded.digest}
    claim(folder, {"model": model, "examples": digest(train), "edges": case.edges, **said})
    if hosts.from_writer(lambda: b"" if (folder / "metrics.jsonl").exists() else b"new"):
        warn_of_doubt(case, loaded, mesh, task, train)

    def show(row: dict) -> None:  # as lines, which can be followed in a log
        if hosts.is_writer():
            print(
                f"{task}: step {row['step']} of {config.steps}, divergence "
                f"{row['divergence']:.3f}, sparsity {row['sparsity']:.4f}", flush=True,
            )  # fmt: skip

    gates = run_pruning(loaded, train, config, folder, on_log=show, mesh=mesh)
    circuit = discrete(
        gates, config, edges=case.edges,
        provenance=origin(
            loaded, **said, method="edge pruning", ablation=config.ablation,
            command=sweep_results.command(),
        ),
    )  # fmt: skip
    path = case.results / f"{label(task)}.json"

    def keep() -> bytes:
        if not path.exists() or circuit_json.load(path, loaded.graph) != circuit:
            path.parent.mkdir(parents=True, exist_ok=True)
            circuit_json.save(circuit, path)
            shutil.copy(folder / "metrics.jsonl", path.with_suffix(".metrics.jsonl"))
        return b""

    hosts.from_writer(keep)
    return circuit


def warn_of_doubt(case: Case, loaded: Loaded, mesh: Mesh | None, task: str, train: Batch) -> None:
    """Warns, before anything is pruned, where the full model does not do the task in this style."""
    with sharding.using(mesh):
        few = take(train, slice(0, SCORED_EXAMPLES))
        scores = score_model(loaded.model, loaded.params, few, batch_size=case.test_batch)
    if scores.doubt:
        warnings.warn(f"{task}: {scores.doubt}", stacklevel=2)


def judge(case: Case, loaded: Loaded, mesh: Mesh | None, task: str, circuits: dict) -> dict:
    """All circuits and controls on unseen prompts of a style."""
    test = prompts(case, loaded, task, split="test", n=case.test_examples)
    with sharding.using(mesh):
        measured = measure_circuits(
            loaded.model, loaded.params, circuits, test, ablation=case.config.ablation,
            n_random=case.random_circuits, seed=case.config.seed, batch_size=case.test_batch,
        )  # fmt: skip
    first = np.asarray(test.tokens[0])[np.asarray(test.valid[0])]
    return {
        "data": {"seed": case.config.seed, "n": len(test), "split": "test"},
        "example": loaded.tokenizer.decode(first.tolist(), skip_special_tokens=False),
        "rows": table(measured),
        "details": details(measured, seed=case.config.seed),
    }


def label(task: str) -> str:
    """A style in names of files and tables: a file of one's own by its stem."""
    return Path(task).stem


def study(case: Case) -> int:
    """Prunes and judges whatever is not there yet, and writes the page. Returns the exit code."""
    loaded, mesh = load(case)
    circuits = {label(task): prune(case, loaded, mesh, task) for task in case.tasks}
    first, second = circuits.values()
    circuits[BOTH] = first & second
    asked = {
        "circuits": {
            name: hashlib.sha256(circuit.kept.tobytes()).hexdigest()
            for name, circuit in circuits.items()
        },
        "test_examples": case.test_examples,
        "random_circuits": case.random_circuits,
    }
    path = case.results / "study.json"
    record = json.loads(hosts.from_writer(lambda: path.read_bytes() if path.exists() else b"{}"))
    if record.get("asked") != asked:
        record = {"asked": asked, "judged": {}}
    for task in case.tasks:
        if label(task) in record["judged"]:
            continue
        record["judged"][label(task)] = judge(case, loaded, mesh, task, circuits)
        record |= {"overlap": boolean_results.overlap(first, second)}
        record |= origin(
            loaded, command=sweep_results.command(), ablation=case.config.ablation,
            settings=dataclasses.asdict(case.config),
        )  # fmt: skip
        if hosts.is_writer():
            atomic.write(path, json.dumps(record, indent=1) + "\n")
    if hosts.is_writer():
        boolean_results.write(case.results, record, BOTH)
    return 0


if __name__ == "__main__":
    asked_for = tyro.extras.overridable_config_cli(CASES, description=__doc__)
    sys.exit(together("boolean_codellama", partial(study, asked_for)))
