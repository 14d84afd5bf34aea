"""The edges that a compiled program's weights can use at all.

A writer writes into a few directions of the stream, whatever it reads, and a reader looks at a
few. Where the two have none in common, the edge carries exactly nothing, in every circuit. Nor
does an edge whose reader's node leads to no output by edges that do carry something, nor, under
interchange ablation, one whose writer no token reaches: it writes the same on both prompts.
Circuits that differ in such edges alone are the same function, so that 2^L of them need to be
told apart and not 2^E.

Axes: E edges, L live edges, D residual width, N directions.
"""

import numpy as np
from jaxtyping import Bool, Float

from edgeprune_jax.graph import FINAL, POSITIONS, TOKENS, Graph
from edgeprune_jax.models.tracr import Params


def live_edges(params: Params, graph: Graph, *, ablation: str) -> Bool[np.ndarray, " E"]:
    """Whether each edge can carry anything from the tokens, or a constant, to the output.

    Exact for compiled weights, whose unused directions give zeros, not small numbers.
    """
    written, read = _written(params, graph), _read(params, graph)
    edges = list(graph.edges())
    live = np.array([bool((read[r] @ written[w].T).any()) for w, r in edges])
    leads = {FINAL}  # nodes; edges are ordered by reader, and nodes only read what is before them
    for i in reversed(range(len(edges))):
        live[i] &= _node(edges[i].reader) in leads
        leads |= {edges[i].writer} if live[i] else set()
    varies = {TOKENS} if ablation == "interchange" else {*graph.writers}
    for i, (writer, reader) in enumerate(edges):
        live[i] &= writer in varies
        varies |= {_node(reader)} if live[i] else set()
    return live


def _node(reader: str) -> str:
    """The writer that a reader belongs to."""
    return reader.removesuffix(".q").removesuffix(".k").removesuffix(".v")


def _written(params: Params, graph: Graph) -> dict[str, Float[np.ndarray, "N D"]]:
    """By writer, vectors that span all it can write."""
    spans: dict = {TOKENS: params.tokens, POSITIONS: params.positions}
    for layer, block in enumerate(params.blocks):
        for head in range(graph.heads):
            spans[f"a{layer}.h{head}"] = np.vstack([block.o[head], block.o_bias])
        spans[f"m{layer}"] = np.vstack([block.down, block.down_bias])
    return {name: np.asarray(span) for name, span in spans.items()}


def _read(params: Params, graph: Graph) -> dict[str, Float[np.ndarray, "N D"]]:
    """By reader, the directions it looks at."""
    looks: dict = {FINAL: params.unembedding.T}
    for layer, block in enumerate(params.blocks):
        for head in range(graph.heads):
            for slot in "qkv":
                looks[f"a{layer}.h{head}.{slot}"] = getattr(block, slot)[head]
        looks[f"m{layer}"] = block.up
    return {name: np.asarray(directions) for name, directions in looks.items()}
