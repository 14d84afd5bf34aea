"""The operations that a step cannot do without: the exact count of its products.

Counted per token from the formulas (`docs/plan.md` derives them), two for a multiplication and
its addition. Nothing is recomputed, nothing multiplied that is no edge or not causal, and norms,
softmax and other elementwise work are left out:

* a run of the layers multiplies every weight once, and every pair of tokens of which the later
  attends to the earlier, twice;
* the masked sums have one product per edge and token, and the final reader's are wanted at the
  answers alone; their derivative has two more, for the mask and for the writers. An embedding has
  no cotangent to wait for, because nothing before it depends on the mask;
* weights get no gradient, so that a backward pass costs as much as a forward pass.
"""

from typing import NamedTuple

import jax

from edgeprune_jax.plan.named import Shape
from edgeprune_jax.plan.request import Request


class Exact(NamedTuple):
    """Floating-point operations of one step on all devices, by part."""

    corrupted: float
    masked: float
    backward: float
    masked_sums: float
    backward_sums: float
    unembedding: float  # of the circuit, and back
    teacher: float  # not in the step: its logits are computed once for all steps

    @property
    def step(self) -> float:
        """All but the teacher."""
        return sum(self) - self.teacher


def exact_flops(shape: Shape, request: Request) -> Exact:
    """The exact count for a batch."""
    graph = shape.graph
    tokens = request.batch * request.length
    answers = request.batch * request.answers
    width = shape.params.embedding.shape[-1]
    block = shape.params.blocks[0]
    weights = sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(block)
        if leaf.ndim > 1 and not jax.tree_util.keystr(path).endswith("bias")
    )
    head_width = block.q.shape[1]
    pairs = request.batch * request.length * (request.length + 1) // 2
    attention = 2 * 2 * pairs * graph.heads * head_width
    layers = graph.layers * (2.0 * tokens * weights + attention)
    # Backward, a product of two activations has two cotangents: scores and mixing of values.
    back = layers + graph.layers * attention

    final = graph.n_writers
    from_embeddings = len(graph.embeddings) * (graph.n_readers - 1)
    edges = graph.n_edges - final
    sums = 2.0 * width * (tokens * edges + answers * final)
    mask_gradient = sums
    cotangents = (
        2.0
        * width
        * (tokens * (edges - from_embeddings) + answers * (final - len(graph.embeddings)))
    )
    logits = 2.0 * answers * shape.vocab * width
    return Exact(
        corrupted=layers,
        masked=layers,
        backward=back,
        masked_sums=sums,
        backward_sums=mask_gradient + cotangents,
        unembedding=2 * logits,
        teacher=layers + logits,
    )
