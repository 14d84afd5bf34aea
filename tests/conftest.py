"""Tiny models of every family, and the circuit formula written a second time, in plain numpy.

The second writing shares no code with the library: it loops over readers and writers by name,
and computes every head by itself. Being made of analytic functions it also runs on complex
numbers, so that a derivative is the imaginary part at a tiny imaginary step, exact to rounding.

Axes: E embedding writers, H query heads, G key/value heads, B batch, T tokens, K head width,
      D residual width, V vocabulary.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edgeprune_jax.graph import POSITIONS, TOKENS, Graph
from edgeprune_jax.models import gpt2, llama, tracr
from edgeprune_jax.stream import LayerWrites, Model, Writes
from edgeprune_jax.tasks.batch import Batch

PROGRAMS = Path(__file__).parents[1] / "tracr_models"
STEP = 1e-30  # of a complex step: nothing is subtracted, so it may be as small as it likes

jax.config.update("jax_num_cpu_devices", 8)  # before the first array: for tests of shardings

LONG = {  # A worker takes whole files, for their fixtures' sake: these first, to end together.
    "test_ground_truth.py", "test_experiments.py", "test_sharded_run.py", "test_cost.py",
    "test_docs.py", "test_recovery.py", "test_engine.py", "test_commands.py", "test_compile.py",
}  # fmt: skip


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session", autouse=True)
def data_cache(tmp_path_factory):
    """No test reads what an earlier run, or the user, left on the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


class Parts(NamedTuple):
    """One family's nodes, each computed alone by numpy."""

    embed: Callable  # params, tokens "B T" -> one "B T D" per embedding writer
    head: Callable  # block, head, group, x_q, x_k and x_v "B T D", valid "B T" -> "B T D"
    mlp: Callable  # block, x "B T D" -> "B T D"
    unembed: Callable  # params, x "B T D" -> "B T V"


class Prompts(NamedTuple):
    tokens: jax.Array
    corrupted: jax.Array
    valid: jax.Array


class Case(NamedTuple):
    """A model and prompts for it. The last prompt is padded, the first is not."""

    model: Model
    params: Any
    graph: Graph
    parts: Parts
    tokens: np.ndarray
    corrupted: np.ndarray
    valid: np.ndarray

    @property
    def params64(self):
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self.params)

    @property
    def on_device(self) -> Prompts:
        return Prompts(*map(jnp.asarray, (self.tokens, self.corrupted, self.valid)))


def embeddings(names, arrays):
    return dict(zip(names, arrays, strict=True))


def softmax(scores, seen):
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.real.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def causal(x):
    return np.tri(x.shape[1], dtype=bool)[None]


def llama_parts(config: llama.LlamaConfig) -> Parts:
    def norm(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_eps) * weight

    def rotate(x):
        rate = config.rope_theta ** (-2 * np.arange(config.head_dim // 2) / config.head_dim)
        angle = np.arange(x.shape[1])[:, None] * rate
        c, s, (first, second) = np.cos(angle), np.sin(angle), np.split(x, 2, -1)
        return np.concatenate([first * c - second * s, second * c + first * s], -1)

    def head(b, h, g, x_q, x_k, x_v, valid):
        def project(x, weight, bias, n):
            y = norm(x, b.attention_norm) @ weight[n].T
            return y if bias is None else y + bias[n]

        q = rotate(project(x_q, b.q, b.q_bias, h))
        k = rotate(project(x_k, b.k, b.k_bias, g))
        v = project(x_v, b.v, b.v_bias, g)
        pattern = softmax(q @ k.swapaxes(1, 2) / config.head_dim**0.5, causal(x_q))
        y = pattern @ v @ b.o[h]
        return y if b.o_bias is None else y + b.o_bias / config.heads

    def mlp(b, x):
        x = norm(x, b.mlp_norm)
        gate = x @ b.gate.T
        return (gate / (1 + np.exp(-gate)) * (x @ b.up.T)) @ b.down

    def unembed(p, x):
        matrix = p.embedding if p.unembedding is None else p.unembedding
        return norm(x, p.norm) @ matrix.T

    return Parts(lambda p, t: embeddings([TOKENS], [p.embedding[t]]), head, mlp, unembed)


def gpt2_parts(config: gpt2.GPT2Config) -> Parts:
    def norm(x, weight, bias):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_eps) * weight + bias

    def embed(p, tokens):
        words = p.embedding[tokens]
        return embeddings([TOKENS, POSITIONS], [words, p.positions[: words.shape[1]] + 0 * words])

    def head(b, h, g, x_q, x_k, x_v, valid):
        q, k, v = (
            norm(x, b.attention_norm, b.attention_norm_bias) @ weight[h].T + bias[h]
            for x, weight, bias in (
                (x_q, b.q, b.q_bias), (x_k, b.k, b.k_bias), (x_v, b.v, b.v_bias),
            )
        )  # fmt: skip
        pattern = softmax(q @ k.swapaxes(1, 2) / q.shape[-1] ** 0.5, causal(x_q))
        return pattern @ v @ b.o[h] + b.o_bias / config.heads

    def mlp(b, x):
        x = norm(x, b.mlp_norm, b.mlp_norm_bias) @ b.up.T + b.up_bias
        gelu = x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
        return gelu @ b.down + b.down_bias

    def unembed(p, x):
        matrix = p.embedding if p.unembedding is None else p.unembedding
        return norm(x, p.norm, p.norm_bias) @ matrix.T

    return Parts(embed, head, mlp, unembed)


def tracr_parts(config: tracr.Config) -> Parts:
    def embed(p, tokens):
        words = p.tokens[tokens]
        return embeddings([TOKENS, POSITIONS], [words, p.positions[: words.shape[1]] + 0 * words])

    def head(b, h, g, x_q, x_k, x_v, valid):
        q, k, v = (
            x @ weight[h].T + bias[h]
            for x, weight, bias in (
                (x_q, b.q, b.q_bias), (x_k, b.k, b.k_bias), (x_v, b.v, b.v_bias),
            )
        )  # fmt: skip
        seen = np.broadcast_to(valid[:, None], (*valid.shape, valid.shape[1]))
        pattern = softmax(q @ k.swapaxes(1, 2) / config.key_size**0.5, seen)
        return pattern @ v @ b.o[h] + b.o_bias / config.heads

    def mlp(b, x):
        hidden = x @ b.up.T + b.up_bias
        return np.where(hidden.real > 0, hidden, 0) @ b.down + b.down_bias

    return Parts(embed, head, mlp, lambda p, x: x @ p.unembedding)


class ToyBlock(NamedTuple):
    q: Any  # H D
    k: Any  # G D
    v: Any  # G D
    o: Any  # H D
    up: Any  # D
    down: Any  # D


class ToyParams(NamedTuple):
    blocks: tuple[ToyBlock, ...]
    table: Any  # E V D
    unembedding: Any  # D V


def toy_embed(params, tokens):
    return params.table[:, tokens]


def toy_attend(b, x_q, x_k, x_v, valid):
    seen = jnp.tril(jnp.ones((valid.shape[1],) * 2, x_q.dtype))
    q, k, v = (
        jnp.tanh(x * weight[:, None, None]) for x, weight in ((x_q, b.q), (x_k, b.k), (x_v, b.v))
    )
    read = seen @ jnp.where(valid[None, :, :, None], k * v, 0)
    return q * jnp.repeat(read, len(b.q) // len(b.k), axis=0) * b.o[:, None, None]


def toy_mlp(b, x):
    return jnp.sin(x * b.up[None, None]) * b.down[None, None]


def toy_unembed(params, x):
    return x @ params.unembedding


def toy_parts(names) -> Parts:
    def head(b, h, g, x_q, x_k, x_v, valid):
        read = np.tanh(x_k * b.k[g]) * np.tanh(x_v * b.v[g]) * valid[..., None]
        return np.tanh(x_q * b.q[h]) * read.cumsum(1) * b.o[h]

    return Parts(
        lambda p, t: embeddings(names, p.table[:, t]),
        head,
        lambda b, x: np.sin(x * b.up) * b.down,
        lambda p, x: x @ p.unembedding,
    )


def _prompts(rng, symbols, batch, length):
    """Tokens, others in their stead, and validity; the last prompt of several is shorter."""
    first = rng.integers(0, len(symbols), (batch, length))
    other = (first + rng.integers(1, len(symbols), (batch, length))) % len(symbols)
    valid = np.ones((batch, length), bool)
    if batch > 1 and length > 2:
        valid[-1, -2:] = False
    return *(np.array(symbols, np.int32)[rank] for rank in (first, other)), valid


def make_toy(
    layers, heads, groups, names=(TOKENS,), *, graph_names=None, batch=2, length=4, seed=0
) -> Case:
    """A family without norms or products of large matrices: it compiles fast, in any precision.

    `names` are what the model embeds, `graph_names` what of it the graph counts as writers.
    """
    rng, width, vocab = np.random.default_rng(seed), 3, 5

    def draw(*shape):
        return jnp.asarray(rng.uniform(0.5, 1.5, shape) * rng.choice((-1, 1), shape))

    blocks = tuple(
        ToyBlock(
            draw(heads, width), draw(groups, width), draw(groups, width), draw(heads, width),
            draw(width), draw(width),
        )
        for _ in range(layers)
    )  # fmt: skip
    params = ToyParams(blocks, draw(len(names), vocab, width), draw(width, vocab))
    graph = Graph(layers, heads, groups, names if graph_names is None else graph_names)
    model = Model(toy_embed, toy_attend, toy_mlp, toy_unembed)
    return Case(model, params, graph, toy_parts(names), *_prompts(rng, range(vocab), batch, length))


def _random(shapes, seed):
    """Parameters around what a trained model has. Numpy: `random_params` takes long to compile."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        noise, name = rng.normal(size=leaf.shape), path[-1].name
        if name.endswith("bias"):
            noise = 0.1 * noise
        elif name.endswith("norm"):
            noise = 1 + 0.1 * noise
        else:
            noise = noise / leaf.shape[-1] ** 0.5
        return jnp.asarray(noise, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def _llama(*, layers=3, batch=2, length=5, **shape) -> Case:
    config = llama.LlamaConfig(layers, head_dim=4, width=12, hidden=10, vocab=11, **shape)
    params = _random(llama.abstract_params(config), 1)
    prompts = _prompts(np.random.default_rng(1), range(config.vocab), batch, length)
    return Case(llama.build(config), params, llama.graph(config), llama_parts(config), *prompts)


def _gpt2(*, layers=3, batch=2, length=5) -> Case:
    config = gpt2.GPT2Config(layers, heads=3, width=12, hidden=10, vocab=11, positions=7)
    params = _random(gpt2.abstract_params(config), 2)
    prompts = _prompts(np.random.default_rng(2), range(config.vocab), batch, length)
    return Case(gpt2.build(config), params, gpt2.graph(config), gpt2_parts(config), *prompts)


def _gpt2_without_writers(**shape) -> Case:
    """The same model, in a graph whose embeddings are no writers."""
    case = _gpt2(**shape)
    graph = case.graph
    return case._replace(graph=Graph(graph.layers, graph.heads, graph.kv_heads))


def _tracr(name, *, layers=None, batch=2, length=5) -> Case:
    del layers  # the program's own
    config, loaded = tracr.read_config(PROGRAMS / name), tracr.load(PROGRAMS / name)
    tokens, corrupted, valid = _prompts(np.random.default_rng(3), config.symbols, batch, length)
    for prompts in (tokens, corrupted):
        prompts[:, 0] = config.bos
        prompts[~valid] = config.pad
    return Case(
        loaded.model, loaded.params, loaded.graph, tracr_parts(config), tokens, corrupted, valid
    )


FAMILIES = {
    "gpt2": _gpt2,
    "gpt2_embeddings_no_writers": _gpt2_without_writers,
    "llama_mha_tied": partial(_llama, heads=2, kv_heads=2, tie_embeddings=True),
    "llama_gqa_bias": partial(_llama, heads=4, kv_heads=2, qkv_bias=True, output_bias=True),
    "llama_mqa": partial(_llama, heads=2, kv_heads=1),
    "tracr_reverse": partial(_tracr, "reverse"),
    "tracr_xproportion": partial(_tracr, "xproportion"),
}


def formula(case: Case, mask, cut, *, params=None, tokens=None, valid=None):
    """Logits of a circuit, in_r = base_r + sum_w m_rw y_w + (1 - m_rw) c_w, and all the y_w.

    `cut` gives c_w by the writer's name. The base is the clean embedding, where it is no writer.
    """
    graph, parts = case.graph, case.parts
    params = case.params64 if params is None else params
    tokens = case.tokens if tokens is None else tokens
    valid = case.valid if valid is None else valid
    written = parts.embed(params, tokens)
    base = 0 * next(iter(written.values()))
    if not graph.embeddings:
        base, written = sum(written.values()), {}

    def read(reader):
        x = base
        for writer, y in written.items():
            m = mask[graph.index(writer, reader)]
            x = x + m * y + (1 - m) * cut[writer]
        return x

    for layer, block in enumerate(params.blocks):
        heads = {}
        for h in range(graph.heads):
            g = h * graph.kv_heads // graph.heads
            x = (read(f"a{layer}.h{h}.q"), read(f"a{layer}.h{g}.k"), read(f"a{layer}.h{g}.v"))
            heads[f"a{layer}.h{h}"] = parts.head(block, h, g, *x, valid)
        written |= heads
        written[f"m{layer}"] = parts.mlp(block, read(f"m{layer}"))
    return parts.unembed(params, read("resid_post")), written


def cut_values(case: Case, ablation: str):
    """What cut edges carry, by the writer's name."""
    nothing = dict.fromkeys(case.graph.writers, np.zeros(()))
    if ablation == "zero":
        shape = (*case.tokens.shape, case.params.blocks[0].o.shape[-1])
        return {name: np.zeros(shape) for name in nothing}
    ones = np.ones(case.graph.n_edges)
    _, written = formula(case, ones, nothing, tokens=case.corrupted)
    if ablation == "interchange":
        return written
    return {name: np.broadcast_to(y[case.valid].mean(0), y.shape) for name, y in written.items()}


def as_writes(case: Case, cut, dtype=np.float32) -> Writes:
    """`cut_values` as the library's `Writes`."""
    graph = case.graph
    some = cut["a0.h0"]  # stands for embeddings that are no writers, which nobody reads
    layers = tuple(
        LayerWrites(
            jnp.asarray(np.stack([cut[f"a{layer}.h{h}"] for h in range(graph.heads)]), dtype),
            jnp.asarray(cut[f"m{layer}"], dtype),
        )
        for layer in range(graph.layers)
    )
    embeds = [cut[name] for name in graph.embeddings] or [0 * some]
    return Writes(jnp.asarray(np.stack(embeds), dtype), layers)


def by_name(case: Case, writes: Writes):
    """The library's `Writes` as numpy arrays by the writer's name."""
    names = case.graph.embeddings  # of those that are no writers nothing is read
    found = embeddings(names, np.asarray(writes.embeds, np.float64)[: len(names)])
    for layer, (heads, mlp) in enumerate(writes.layers):
        found |= {f"a{layer}.h{h}": np.asarray(y, np.float64) for h, y in enumerate(heads)}
        found[f"m{layer}"] = np.asarray(mlp, np.float64)
    return found


def slope(case: Case, weight, mask, cut, *, mask_by=0, cut_by=None, params_by=None):
    """The derivative of sum(weight * logits) when mask, cut values and parameters move together."""
    cut_by = cut_by or {}
    params = case.params64
    if params_by is not None:
        params = jax.tree.map(lambda leaf, by: leaf + 1j * STEP * by, params, params_by)
    cut = {name: value + 1j * STEP * cut_by.get(name, 0) for name, value in cut.items()}
    logits, _ = formula(case, mask + 1j * STEP * mask_by, cut, params=params)
    return (weight * logits).sum().imag / STEP


def mask_gradient(case: Case, weight, mask, cut):
    """The derivative of sum(weight * logits) with respect to each entry of the mask."""
    return np.array([slope(case, weight, mask, cut, mask_by=row) for row in np.eye(len(mask))])


def as_batch(case: Case, *, seed=0) -> Batch:
    """The case's prompts as a task: a scored and a skipped position, a target and a foil each."""
    rng, lengths = np.random.default_rng(seed), case.valid.sum(1)
    shape = (len(lengths), 2)
    vocab = len(case.params64.table[0]) if hasattr(case.params, "table") else 11
    targets = rng.integers(0, vocab - 1, shape)
    scored = np.ones(shape, np.float32)
    scored[::2, 0] = 0
    return Batch(
        case.tokens, case.corrupted, case.valid,
        np.stack([lengths - 2, lengths - 1], 1).astype(np.int32), scored,
        targets.astype(np.int32), (targets + 1).astype(np.int32),
    )  # fmt: skip


class Plain(NamedTuple):
    """The second writing of the formula, as tests see it."""

    formula: Callable = formula
    cut_values: Callable = cut_values
    as_writes: Callable = as_writes
    by_name: Callable = by_name
    slope: Callable = slope
    mask_gradient: Callable = mask_gradient
    as_batch: Callable = as_batch


@pytest.fixture(scope="session")
def plain() -> Plain:
    """The circuit formula, edge by edge in numpy."""
    return Plain()


@pytest.fixture(scope="session")
def toy_case() -> Callable[..., Case]:
    """Makes a model that compiles fast: `toy_case(layers, heads, groups, names, ...)`."""
    return make_toy


@pytest.fixture(scope="session", params=FAMILIES)
def make_family(request) -> Callable[..., Case]:
    """Makes a tiny model of each family: `make_family(layers=..., batch=..., length=...)`."""
    return FAMILIES[request.param]


@pytest.fixture(scope="session")
def family(make_family) -> Case:
    """A tiny model of each family."""
    return make_family()
