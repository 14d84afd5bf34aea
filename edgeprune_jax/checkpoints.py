"""Checkpoints of a run, by orbax: all that it needs to go on, and which run it is.

    checkpoints/50/state   gates, multipliers, the optimiser's moments, step, remembered failures
    checkpoints/50/about   JSON: model, data and the place in them, settings, provenance

What is read back is checked before it is used: a folder may come from anywhere.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from edgeprune_jax import provenance
from edgeprune_jax.models.loaded import Loaded
from edgeprune_jax.pruning import PruneState
from edgeprune_jax.settings import PruneConfig
from edgeprune_jax.tasks.batch import Batch, digest

FORMAT = 1


@dataclass(frozen=True)
class Policy:
    """When checkpoints are written and which are kept. Raises `ValueError` for a number below 1."""

    every: int = 50
    """Steps from one checkpoint to the next."""
    keep: int = 2
    """Checkpoints to keep, the newest."""

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f"checkpoint.{name} must be at least 1: got {value}")


USUAL = Policy()


def describe(loaded: Loaded, data: Batch, config: PruneConfig) -> dict:
    """What a checkpoint says of its run, as plain JSON: model, data, settings, provenance."""
    return {
        "model": {"name": loaded.name, "digest": loaded.digest},
        "data": {"digest": digest(data), "examples": len(data)},
        "settings": dataclasses.asdict(config),
        "provenance": provenance.collect(devices=[one.device_kind for one in jax.devices()]),
    }


def open_checkpoints(folder: Path, policy: Policy = USUAL) -> ocp.CheckpointManager:
    """The checkpoints of one run. Close it, or use it in a `with`.

    Drafts that a kill left behind are removed. Of several processes it is the writer's affair, and
    no other takes part. Raises `ValueError` for a folder that orbax cannot make sense of.
    """
    alone = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="writer"
    )
    options = ocp.CheckpointManagerOptions(
        max_to_keep=policy.keep, cleanup_tmp_directories=True, multiprocessing_options=alone,
        create=False,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    handlers: Any = {"state": ocp.StandardCheckpointHandler(), "about": ocp.JsonCheckpointHandler()}
    try:
        return ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handlers)
    except RecursionError as error:  # of its JSON
        raise ValueError(f"{folder} holds no checkpoints: {error}") from error


def save(manager: ocp.CheckpointManager, state: PruneState, run: dict) -> None:
    """Writes a state of the run `describe`d, in host memory, while the run goes on.

    Waits for the write before it, if any. One that a kill interrupts is no checkpoint.
    """
    step = int(state.step)
    items = ocp.args.Composite(
        state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(_about(run, step))
    )
    manager.save(step, args=items)


def restore(manager: ocp.CheckpointManager, like: PruneState, run: dict) -> PruneState:
    """The newest state, in host memory, or `like` itself where nothing was saved.

    Raises `ValueError`, in one line, where what was saved is of another run than the one
    `describe`d, does not have the shapes and types of `like`, or cannot be read.
    """
    manager.wait_until_finished()
    step = manager.latest_step()
    if step is None:
        return like
    try:
        items = ocp.args.Composite(about=ocp.args.JsonRestore())
        _check_about(manager.restore(step, args=items)["about"], run, step)
        wanted = jax.tree.map(np.asarray, like)
        # Orbax would leave out what is missing here or there, and say nothing.
        saved = jax.tree.leaves(manager.item_metadata(step)["state"])
        if _kinds(saved) != _kinds(jax.tree.leaves(wanted)):
            raise ValueError("its arrays have other shapes or types")
        items = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
        found: PruneState = manager.restore(step, args=items)["state"]
        if int(found.step) != step:
            raise ValueError(f"its state is of step {int(found.step)}")
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found)):
            raise ValueError("it holds numbers that are not finite")
    except Exception as error:  # whatever orbax makes of what is there, it is no checkpoint
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{manager.directory}/{step} is no checkpoint of this run: {reason[:300]} "
            "(remove it to go on from the one before)"
        ) from error
    return found


def _about(run: dict, step: int) -> dict:
    # Which examples come next is a function of the seed and the step alone (`tasks.buckets`).
    position = {"position": step * run["settings"]["batch_size"]}
    return run | {"format": FORMAT, "step": step, "data": run["data"] | position}


def _check_about(about: object, run: dict, step: int) -> None:
    if not isinstance(about, dict):
        raise ValueError(f"about must be an object: got {type(about).__name__}")
    wanted = json.loads(json.dumps(_about(run, step)))
    names = ("format", "model", "settings", "data", "step")
    if differing := [name for name in names if about.get(name) != wanted[name]]:
        raise ValueError(f"it differs in {', '.join(differing)}")
    if step > wanted["settings"]["steps"]:
        raise ValueError(f"step must be at most {wanted['settings']['steps']}: got {step}")
    provenance.check(about.get("provenance"))


def _kinds(leaves: list) -> list:
    return sorted((tuple(leaf.shape), np.dtype(leaf.dtype).name) for leaf in leaves)
