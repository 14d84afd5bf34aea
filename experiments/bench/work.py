"""What is timed: one model of random weights and one batch, and the functions on them.

Axes: B batch, T tokens, V vocabulary.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edgeprune_jax import cost
from edgeprune_jax.ablation import ablated_writes
from edgeprune_jax.baselines.eap import mask_gradient
from edgeprune_jax.engine import masked_forward
from edgeprune_jax.graph import Edges, Graph
from edgeprune_jax.models import gpt2, llama
from edgeprune_jax.pruning import init, make_step
from edgeprune_jax.settings import PruneConfig
from edgeprune_jax.stream import Model, plain_forward
from edgeprune_jax.tasks.batch import Batch


@dataclass(frozen=True)
class Work:
    """A model's shape and a batch's. The defaults are GPT-2 small on 8 prompts of 20 tokens."""

    shape: str = "gpt2"
    """Family and sizes to start from: 'gpt2' (small) or 'smollm2' (135M)."""
    batch: int = 8
    """Prompt pairs in a batch."""
    tokens: int = 20
    """Tokens of a prompt."""
    layers: int | None = None
    """Layers, where they are not the shape's own."""
    heads: int | None = None
    """Heads, each as wide as the shape's own: so the model's width. SmolLM2's come in threes."""
    segment: int | None = None
    """Layers in a block of the engine. By default the engine chooses."""
    outbox_dtype: str | None = None
    """Of the outbox: float32 or bfloat16. By default the model's own, float32."""


class Built(NamedTuple):
    """A model with its weights, and a batch of one answer each."""

    model: Model
    graph: Graph
    params: Any
    batch: Batch
    teacher: Any  # B 1 V
    shapes: cost.Shapes


def build(work: Work) -> Built:
    """Weights and prompts, random. Raises `ValueError` for a shape that there is not."""
    if work.shape == "gpt2":
        heads = work.heads or 12
        family, config = gpt2, gpt2.GPT2Config(
            layers=work.layers or 12, heads=heads, width=64 * heads, hidden=256 * heads,
            vocab=50257, positions=max(1024, work.tokens),
        )  # fmt: skip
    elif work.shape == "smollm2":
        heads = work.heads or 9
        if heads % 3:
            raise ValueError(f"smollm2 has three heads to a group: got {heads} heads")
        family, config = llama, llama.LlamaConfig(
            layers=work.layers or 30, heads=heads, kv_heads=heads // 3, head_dim=64,
            width=64 * heads, hidden=512 * heads // 3, vocab=49152,
        )  # fmt: skip
    else:
        raise ValueError(f"shape must be 'gpt2' or 'smollm2': got {work.shape!r}")
    generator = np.random.default_rng(0)
    size = (work.batch, work.tokens)
    tokens, corrupted = generator.integers(1000, 20000, (2, *size), dtype=np.int32)
    one = np.ones((work.batch, 1), np.int32)
    batch = Batch(
        tokens, corrupted, np.ones(size, bool), one * (work.tokens - 1),
        one.astype(np.float32), tokens[:, :1], corrupted[:, :1],
    )  # fmt: skip
    model = family.build(config)
    params = family.random_params(config, key=jax.random.key(0))
    teacher = jax.jit(plain_forward, static_argnums=0)(
        model, params, batch.tokens, positions=batch.positions
    )
    shapes = cost.Shapes(work.batch, work.tokens, 1)
    return Built(model, family.graph(config), params, jax.device_put(batch), teacher, shapes)


class Compiled(NamedTuple):
    program: Callable
    run: Callable  # () -> something to wait for
    seconds: float  # that compilation took
    temporary_bytes: int
    flops: float  # by XLA's count


def compiled(function: Callable, *inputs: Any) -> Compiled:
    """Compiles a jitted function for its inputs, and binds them."""
    start = time.perf_counter()
    program = function.lower(*inputs).compile()
    seconds = time.perf_counter() - start
    size = program.memory_analysis().temp_size_in_bytes
    flops = program.cost_analysis()["flops"]
    return Compiled(program, lambda: program(*inputs), seconds, size, flops)


def plain(built: Built) -> Compiled:
    """The ordinary forward pass, which unembeds every position."""

    def forward(params, tokens):
        return plain_forward(built.model, params, tokens)

    return compiled(jax.jit(forward), built.params, built.batch.tokens)


def masked(built: Built, work: Work) -> Compiled:
    """The masked forward pass, the corrupted run included."""

    def forward(params, batch, values):
        return masked_forward(
            built.model, params, batch.tokens, Edges(values, built.graph),
            corrupted_tokens=batch.corrupted, positions=batch.positions, segment=work.segment,
            outbox_dtype=work.outbox_dtype,
        )  # fmt: skip

    values = jax.random.uniform(jax.random.key(1), (built.graph.n_edges,))
    return compiled(jax.jit(forward), built.params, built.batch, values)


def eap(built: Built) -> Compiled:
    """The scores of all edges on one batch."""
    weight = jnp.ones(built.shapes.batch)

    def scores(params, batch, weight):
        cut = ablated_writes(built.model, params, batch.corrupted, valid=batch.valid)
        return mask_gradient(built.model, built.graph, "answer", params, batch, cut, weight)

    return compiled(jax.jit(scores), built.params, built.batch, weight)


def step(built: Built, work: Work) -> Compiled:
    """The training step, from one state to the next, with the teacher's logits given."""
    config = PruneConfig(batch_size=work.batch, outbox_dtype=work.outbox_dtype)
    function = make_step(built.model, config, segment=work.segment)
    state = init(built.graph, config)
    rest = (built.params, built.batch, built.teacher, None)
    once = compiled(function.func, *function.args, state, *rest)
    held = [state]

    def run():
        held[0], metrics = once.program(*function.args, held[0], *rest)  # the state is donated
        return metrics

    return once._replace(run=run)
