"""Circuits of transformers by Edge Pruning. The public names; everything else by its module."""

from edgeprune_jax.circuits import Circuit as Circuit
from edgeprune_jax.engine import masked_forward as masked_forward
from edgeprune_jax.evaluation import evaluate as evaluate
from edgeprune_jax.gates import discretise as discretise
from edgeprune_jax.gates import sample_gates as sample_gates
from edgeprune_jax.graph import Edges as Edges
from edgeprune_jax.graph import Graph as Graph
from edgeprune_jax.models.load import load_model as load_model
