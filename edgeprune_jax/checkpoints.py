"""Saving and resuming a run with orbax. One host is enough here; `PruneState` is all there is."""

from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from edgeprune_jax.pruning import PruneState


def open_checkpoints(folder: Path, *, keep: int = 2) -> ocp.CheckpointManager:
    """The checkpoints of one run, the last `keep` of them. Close it, or use it in a `with`."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    handler = ocp.StandardCheckpointHandler()  # known from the start, it can tell what is there
    return ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handler)


def save(manager: ocp.CheckpointManager, state: PruneState) -> None:
    """Writes a copy of a state while the run goes on: the next step takes the state's buffers.

    Waits for the write before it, if any. One that a kill interrupts is no checkpoint.
    """
    manager.save(int(state.step), args=ocp.args.StandardSave(jax.tree.map(jnp.copy, state)))


def restore(manager: ocp.CheckpointManager, like: PruneState) -> PruneState:
    """The newest state, or `like` itself where nothing was saved.

    Raises `ValueError` where what was saved does not have the shapes of `like`.
    """
    manager.wait_until_finished()
    step = manager.latest_step()
    if step is None:
        return like
    shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    try:
        # Orbax would leave out what is missing here or there, and say nothing.
        saved = jax.tree.leaves(manager.item_metadata(step))
        wanted = jax.tree.leaves(shapes)
        if sorted(leaf.shape for leaf in saved) != sorted(leaf.shape for leaf in wanted):
            raise ValueError("its arrays differ")
        found = manager.restore(step, args=ocp.args.StandardRestore(shapes))
        return cast(PruneState, found)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{manager.directory}: the checkpoint of step {step} belongs to "
            f"another model or other settings ({type(error).__name__})"
        ) from error
