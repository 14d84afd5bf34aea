"""`edgeprune prune`: find a circuit by Edge Pruning, and compare it with others of its size."""

import dataclasses
import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from edgeprune_jax import atomic, circuit_json, hosts, scores_file
from edgeprune_jax.baselines.eap import eap, eap_circuit
from edgeprune_jax.checkpoints import Policy
from edgeprune_jax.circuits import Circuit
from edgeprune_jax.cli import dry_run
from edgeprune_jax.cli.inputs import find_data, find_mesh, find_model, origin, read_start
from edgeprune_jax.cli.progress import Progress
from edgeprune_jax.cli.replicas import write_replicas
from edgeprune_jax.evaluation import evaluate
from edgeprune_jax.full_model import score_model
from edgeprune_jax.measures.stability import sentence
from edgeprune_jax.models.load import DEFAULT
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.report.run import write_run_report
from edgeprune_jax.report.tables import comparison, to_rich
from edgeprune_jax.run import check, claim, discrete, ranking, run_pruning
from edgeprune_jax.scores_file import Scores
from edgeprune_jax.settings import ANYTIME, PAPER, PruneConfig
from edgeprune_jax.sharding import MeshShape
from edgeprune_jax.tasks.batch import Batch, digest, take

PRESETS = {"default": PruneConfig(), "paper": PAPER, "anytime": ANYTIME}
EAP_EXAMPLES = 64
SCORED_EXAMPLES = 128


@dataclass(frozen=True)
class Prune:
    """Find a circuit by Edge Pruning.

    Writes circuit.json, scores.safetensors (the final gates, of which circuits of other sizes can
    be cut), metrics.jsonl, evaluation.json, circuit.svg and report.html; of several replicas also
    the circuit of each and stability.json. A run that was stopped goes on from its last checkpoint
    when the command is given again.
    """

    out: Path
    """Folder of the run."""
    model: str = DEFAULT
    """Model: a name, a .gguf file, a folder in Hugging Face format, or a compiled program."""
    task: str = "ioi"
    """Task: a name, a .jsonl file of your own, or 'domain' for a compiled program's inputs."""
    examples: int = 400
    """Prompt pairs to prune on."""
    test_examples: int = 100
    """Prompt pairs of the test split to compare circuits on. With 0 nothing is compared."""
    random_circuits: int = 5
    """Random circuits of equal size in the comparison."""
    data_seed: int = 0
    """Seed of the prompts."""
    edges: int | None = None
    """Edges of the final circuit. Without it the gates decide, by bisection."""
    warm_start: Path | None = None
    """Scores of `edgeprune attribute` (a .safetensors file) whose ranks the gates start from."""
    preset: Literal["default", "paper", "anytime"] = "default"
    """Settings to start from; those given beside it replace the preset's. 'anytime' ranks all
    edges, for circuits of every size, and is best with a warm start; other --steps need another
    --warmup too, here 500 of 800."""
    dry_run: bool = False
    """Estimate memory and time of a step, print them, and write nothing."""
    json: bool = False
    """Print the result as one JSON object, and no progress."""
    config: Annotated[PruneConfig, tyro.conf.arg(name="")] = field(default_factory=PruneConfig)
    """Settings of the method."""
    mesh: MeshShape = field(default_factory=MeshShape)
    """Devices to split the model and the batches over. By default one."""
    checkpoint: Policy = field(default_factory=Policy)
    """What a stopped run goes on from."""


def with_preset(arguments: list[str]) -> list[str]:
    """Spells out the settings of the last `--preset` ahead of those given, so that these win."""
    if arguments[:1] != ["prune"]:
        return arguments
    name, settings = "default", []
    for flag, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if flag == "--preset":
            name = following
        elif flag.startswith("--preset="):
            name = flag.removeprefix("--preset=")
    for entry in dataclasses.fields(PruneConfig):
        value = getattr(PRESETS.get(name, PruneConfig()), entry.name)
        flag = entry.name.replace("_", "-")
        if value == entry.default:
            continue
        settings += [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
    return ["prune", *settings, *arguments[1:]]


def run(options: Prune) -> int:
    loaded = find_model(options.model)
    sizes = {"n": options.examples, "seed": options.data_seed}
    found = find_data(loaded, options.task, split="train", **sizes)
    train = found.batch
    if options.edges is not None and not 1 <= options.edges <= loaded.graph.n_edges:
        raise ValueError(
            f"--edges must be between 1 and {loaded.graph.n_edges}, those of {loaded.name}: "
            f"got {options.edges}"
        )
    check(loaded, train, options.config)
    first, begun = None, {}
    if options.warm_start is not None:
        first, begun = read_start(options.warm_start, loaded, options.config)
    mesh = find_mesh(options.mesh, loaded, options.config)
    if options.dry_run:
        return show_estimate(options, loaded, train)
    test = None  # read before any work, so that a file without test prompts is refused now
    if options.test_examples:
        sizes["n"] = options.test_examples
        test = find_data(loaded, options.task, split="test", **sizes).batch
    settings = dataclasses.asdict(options.config)
    identity = {
        "model": {"name": loaded.name, "digest": loaded.digest},
        "task": options.task,
        "data": {
            "seed": options.data_seed, "n_train": len(train), "left_out": found.left_out,
            "split": "train", "digest": digest(train),
        },
        "settings": settings,
    } | begun  # fmt: skip
    claim(options.out, identity)
    writes, alike = hosts.is_writer(), None
    console = Console(quiet=options.json or not writes)
    console.print(f"{options.task} in {loaded.name}: {options.out}")
    scores = score_model(loaded.model, loaded.params, take(train, slice(0, SCORED_EXAMPLES)))
    if scores.means:
        said = ", ".join(f"{name.replace('_', ' ')} {x:.3f}" for name, x in scores.means.items())
        console.print(f"full model: {said}")
    if scores.doubt:
        warnings.warn(f"{scores.doubt}: a circuit explains what it does instead", stacklevel=2)
    with Progress(console, "pruning", options.config.steps) as bar:
        gates = run_pruning(
            loaded, train, options.config, options.out, on_log=bar.show, mesh=mesh,
            policy=options.checkpoint, first=first,
        )  # fmt: skip
    circuit = discrete(
        gates, options.config, edges=options.edges,
        provenance=origin(
            loaded, task=options.task, data=identity["data"], method="edge pruning",
            ablation=options.config.ablation, settings=settings, **begun,
        ),
    )  # fmt: skip
    if writes:
        circuit_json.save(circuit, options.out / "circuit.json")
        scores = Scores(ranking(gates), "signed", None, circuit.provenance)
        scores_file.save(scores, options.out / "scores.safetensors")
        alike = write_replicas(options.out, circuit)
    table = {}
    if test is not None:
        with console.status("comparing circuits on the test split"):
            table = compare(options, loaded, circuit, train, test)
    if not writes:
        return 0
    if table:
        atomic.write(options.out / "evaluation.json", json.dumps(table, indent=1) + "\n")
    write_run_report(options.out, circuit, table, title=f"{options.task} in {loaded.name}")
    if options.json:
        found = {"out": str(options.out), "edges": len(circuit), "evaluation": table}
        sparsity = circuit.provenance["sparsity"]
        print(json.dumps(found | {"sparsity": sparsity, "stability": alike}))
    else:
        if alike:
            console.print(f"{alike['circuits']} replicas: {sentence(alike)}")
        if table:
            console.print(to_rich(comparison("Unseen prompts of the test split", table)))
        console.print(f"written: {options.out}/report.html, circuit.json, circuit.svg")
    return 0


def show_estimate(options: Prune, loaded: Loaded, train: Batch) -> int:
    """Prints what the run would need."""
    found = dry_run.estimate(loaded, train, options.config)
    if options.json:
        print(json.dumps(found))
    else:
        Console().print(dry_run.to_rich(found, options.config))
    return 0


def compare(
    options: Prune, loaded: Loaded, circuit: Circuit, train: Batch, test: Batch
) -> dict[str, dict[str, float | int]]:
    """The circuit's row beside EAP's circuit of the same size and the controls."""
    config = options.config
    scores = eap(
        loaded.model, loaded.params, loaded.graph,
        take(train, slice(0, EAP_EXAMPLES)), ablation=config.ablation,
    )  # fmt: skip
    rivals = {"edge pruning": circuit, "EAP": eap_circuit(scores, len(circuit))}
    return evaluate(
        loaded.model, loaded.params, rivals, test, ablation=config.ablation,
        n_random=options.random_circuits, seed=options.data_seed,
    )  # fmt: skip
