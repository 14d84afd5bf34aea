"""Who may import whom: an arrow may only go to a lower level, so that there is no way around."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRACR = "tracr_models."

# From the ground up. Names are below `edgeprune_jax`, unless they begin with `tracr_models`.
LEVELS = (
    """hosts""",
    """sharding""",
    """graph stream objectives hard_examples atomic provenance keeping masked_sums
       tasks.batch tasks.words tasks.splits measures.bootstrap
       models.layers models.stored models.tokenizer models.gguf_file
       plan.hlo plan.topology plan.h100""",
    """gates circuits replicas masked_layers ablation tasks.prompts tasks.buckets measures.ordered
       models.loaded models.gpt2 models.llama report.curves
       plan.loops plan.roofline plan.request plan.products plan.traffic""",
    """engine cost estimators circuit_json tasks.alignment baselines.metrics
       tasks.ioi tasks.greater_than tasks.gendered_pronoun tasks.boolean tasks.docstring
       tasks.induction tasks.arithmetic tasks.multiple_choice
       models.tracr models.gguf models.huggingface_config report.layout report.tables
       plan.messages plan.process""",
    """settings evaluation baselines.eap scores_file mib tasks.jsonl models.huggingface
       measures.minimality measures.stability report.routes report.page""",
    """trainable tasks.make models.load measures.details measures.curve warm_start report.draw
       plan.count plan.named plan.make
       baselines.patching baselines.integrated baselines.controls""",
    """pruning full_model tasks.cache measures.completeness plan.exact baselines.acdc
       mib_submission""",
    """checkpoints""",
    """run report.run measures.judge baselines.attribution plan.program""",
    """plan.child
       tracr_models.programs tracr_models.domain tracr_models.live
       tracr_models.stored_truth""",
    """tracr_models.entry tracr_models.judge tracr_models.polish""",
    """tracr_models.compile tracr_models.certificate""",
    """tracr_models.store tracr_models.ground_truth""",
    """tracr_models.recovery tracr_models.table""",
    """cli.inputs cli.progress cli.dry_run cli.explain cli.replicas""",
    """cli.prune cli.attribute cli.export_mib cli.compare cli.draw cli.tracr cli.plan
       cli.several""",
    """cli.evaluate""",
    """cli.main""",
    """__main__""",
)
LEVEL = {
    name if name.startswith(TRACR) else f"edgeprune_jax.{name}": level
    for level, names in enumerate(LEVELS)
    for name in names.split()
}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for package in ("edgeprune_jax", "tracr_models")
    for path in sorted((ROOT / package).rglob("*.py"))
}
FACADE = "edgeprune_jax.__init__"  # the public names, for users and nobody inside
MODULES = [name for name in FILES if not name.endswith("__init__")]


def imports(name):
    """The modules that a module names, as `a.b.c`, wherever in its file."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in FILES else node.module)
    return found


def roots(name):
    return {module.split(".")[0] for module in imports(name)}


def test_every_module_has_its_level():
    assert sorted(LEVEL) == sorted(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name):
    ours = {m for m in imports(name) if m.split(".")[0] in ("edgeprune_jax", "tracr_models")}
    for module in ours:
        assert module in LEVEL, f"{name} imports {module}, which is no module but a package"
        assert LEVEL[module] < LEVEL[name], f"{name} imports {module}, which is not below it"


def test_empty_packages_import_nothing():
    for name in FILES:
        if name.endswith("__init__") and name != FACADE:
            assert not imports(name), name


def test_nothing_below_the_commands_imports_the_compiled_programs():
    for name in MODULES:
        if not name.startswith(("edgeprune_jax.cli.", TRACR)):
            assert "tracr_models" not in roots(name), name
    assert "tracr_models" not in roots(FACADE)


@pytest.mark.parametrize(
    "package, where",
    [
        ("matplotlib", {"edgeprune_jax.report.curves"}),
        ("jinja2", {"edgeprune_jax.report.page"}),
        ("tracr", {"tracr_models.compile"}),
        ("orbax", {"edgeprune_jax.checkpoints"}),
        ("gguf", {"edgeprune_jax.models.gguf_file"}),
        ("huggingface_hub", {"edgeprune_jax.models.huggingface"}),
    ],
)
def test_a_heavy_package_is_imported_in_one_file(package, where):
    assert {name for name in FILES if package in roots(name)} == where


@pytest.mark.parametrize("package", ["torch", "transformers", "haiku", "experiments", "tests"])
def test_a_foreign_package_is_imported_nowhere(package):
    assert not [name for name in FILES if package in roots(name)]


def test_only_commands_read_the_command_line():
    users = {name for name in FILES if "tyro" in roots(name)}
    assert users and all(name.startswith("edgeprune_jax.cli.") for name in users)
