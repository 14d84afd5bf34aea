"""The tasks by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tokenizers import Tokenizer

from edgeprune_jax.tasks.batch import Batch
from edgeprune_jax.tasks.ioi import Split, make_ioi

TASKS: Mapping[str, Callable[..., Batch]] = MappingProxyType({"ioi": make_ioi})


def make_task(name: str, tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Batch:
    """`n` examples of a task; a task is a function of the tokenizer, the split, n and the seed."""
    if name not in TASKS:
        raise ValueError(f"the tasks are {', '.join(sorted(TASKS))}: got {name!r}.")
    return TASKS[name](tokenizer, split=split, n=n, seed=seed)
