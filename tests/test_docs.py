"""The code in the README and in docs/ runs, and does what the words around it say."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp

ROOT = Path(__file__).parents[1]


def run_blocks(path: Path) -> dict:
    """Runs a page's Python blocks one after the other and returns the names they define."""
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)
    assert blocks, f"{path} shows no Python"
    names: dict = {}
    for block in blocks:
        code = compile(block, str(path), "exec")
        exec(code, names)
    return names


def test_a_foreign_flax_model_is_pruned_through_four_functions():
    from edgeprune_jax import Edges, masked_forward
    from edgeprune_jax.objectives import kl

    names = run_blocks(ROOT / "docs" / "own_model.md")
    circuit, graph, data = names["circuit"], names["graph"], names["data"]
    assert int(circuit.values.sum()) == 20

    def distance(mask):
        logits = masked_forward(
            names["model"], names["params"], data.tokens, mask,
            corrupted_tokens=data.corrupted, positions=data.positions,
        )  # fmt: skip
        return float(kl(names["teacher"], logits, data.scored).mean())

    def drawn(seed):
        order = jax.random.permutation(jax.random.key(seed), graph.n_edges)
        return Edges((order < 20).astype(jnp.float32), graph)

    # The weights are random, so that no small circuit is faithful; ours beats all others tried.
    assert distance(circuit) < distance(Edges(jnp.zeros(graph.n_edges), graph))
    assert distance(circuit) < min(distance(drawn(seed)) for seed in range(20))


def test_the_readme_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(ROOT / "README.md")
    assert names["circuit"].values.shape == (70_651,)


def test_the_public_names_are_those_of_the_readme():
    import edgeprune_jax

    text = (ROOT / "README.md").read_text()
    sentence = re.search(r"The public names, stable from now on: (.*?)\. Your", text, re.DOTALL)
    names = re.findall(r"`(\w+)`", sentence.group(1))
    assert len(names) == 8
    assert all(callable(getattr(edgeprune_jax, name)) for name in names)
