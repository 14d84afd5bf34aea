"""The tasks by name."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tokenizers import Tokenizer

from edgeprune_jax.tasks import (
    arithmetic,
    boolean,
    docstring,
    gendered_pronoun,
    greater_than,
    induction,
    ioi,
    multiple_choice,
)
from edgeprune_jax.tasks.alignment import Aligned, align
from edgeprune_jax.tasks.jsonl import make_jsonl
from edgeprune_jax.tasks.prompts import Draw
from edgeprune_jax.tasks.splits import Split

TASKS: Mapping[str, Draw] = MappingProxyType({
    "ioi": ioi.ioi,
    "ioi-t1": ioi.ioi_t1,
    "ioi-instruction": ioi.ioi_instruction,
    "greater-than": greater_than.greater_than,
    "gendered-pronoun": gendered_pronoun.gendered_pronoun,
    "boolean-few-shot": boolean.few_shot,
    "boolean-instruction": boolean.instruction,
    "docstring": docstring.docstring,
    "induction": induction.induction,
    "addition": arithmetic.addition,
    "subtraction": arithmetic.subtraction,
    "multiple-choice": multiple_choice.multiple_choice,
})  # fmt: skip


def make_task(name: str, tokenizer: Tokenizer, *, split: Split, n: int, seed: int) -> Aligned:
    """Up to `n` examples of a task, named or a file; what does not align is left out and counted.

    Nothing but the arguments decides what they are. Raises `ValueError` for an unknown task or
    split, for more prompts than the split holds, and where no pair is left.
    """
    if name.endswith(".jsonl"):
        return make_jsonl(Path(name), tokenizer, split=split, n=n, seed=seed)
    if name not in TASKS:
        raise ValueError(
            f"the tasks are {', '.join(sorted(TASKS))}, or a .jsonl file of your own: got {name!r}."
        )
    return align(TASKS[name](tokenizer, split=split, n=n, seed=seed), tokenizer)
