"""What one has to say of a program to have it compiled, and where it is said.

A program is named `NAME`, of `programs.py`, or `MODULE:NAME`, of a user's Python module that
offers `PROGRAMS` in the same form. The working directory is searched for the module first, as
`python -m` does.
"""

import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tracr_models.domain import Domain, size
from tracr_models.programs import PROGRAMS

DEFAULTS = {"shortest": 1, "bos": False, "max_seq_len": None, "causal": False,
            "mlp_exactness": 100}  # fmt: skip
FORM = "(function, vocabulary, longest[, options])"


class Program(NamedTuple):
    """An entry of `programs.PROGRAMS`, where the fields are explained."""

    source: Callable
    vocabulary: Sequence
    longest: int
    options: Mapping = {}

    @property
    def settings(self) -> dict:
        """The options with their defaults."""
        settings = {**DEFAULTS, **self.options}
        settings["max_seq_len"] = settings["max_seq_len"] or self.longest
        return settings

    @property
    def domain(self) -> Domain:
        return Domain(self.settings["shortest"], self.longest, self.settings["bos"])


def find_entry(name: str) -> tuple[str, Program]:
    """The program of a name, `NAME` or `MODULE:NAME`, and its own name.

    Imports the module, which is code that a user chose to run. Raises `ValueError` where there is
    no such program, or its entry is not of the form.
    """
    module, _, own = name.rpartition(":")
    programs = _programs_of(module) if module else PROGRAMS
    if own not in programs:
        where = f" of {module}" if module else ""
        raise ValueError(f"programs{where} are {', '.join(map(str, programs))}: got {own!r}")
    return own, check(own, programs[own])


def check(name: str, entry: object) -> Program:
    """The entry, if a program can be made of it. Raises `ValueError` naming what is wrong."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", name):
        raise ValueError(f"a program's name must be letters, digits, _, . and -: got {name!r}")
    if not isinstance(entry, Sequence) or not 3 <= len(entry) <= 4 or not callable(entry[0]):
        raise ValueError(f"{name}: an entry must be {FORM}: got {ascii(entry)[:80]}")
    program = Program(*entry)
    symbols = program.vocabulary
    if not isinstance(symbols, list | tuple | set | frozenset) or not symbols:
        raise ValueError(f"{name}: the vocabulary must be a list of symbols: got {symbols!r:.80}")
    if not all(isinstance(symbol, str | int | float) for symbol in symbols):
        raise ValueError(f"{name}: symbols must be text or numbers: got {symbols!r:.80}")
    if not isinstance(program.options, Mapping) or program.options.keys() - DEFAULTS.keys():
        raise ValueError(
            f"{name}: options must be among {', '.join(DEFAULTS)}: got {program.options!r:.80}"
        )
    settings = program.settings
    numbers = {key: settings[key] for key in ("shortest", "max_seq_len", "mlp_exactness")}
    for field, value in {"longest": program.longest, **numbers}.items():
        if type(value) is not int or value < 1:  # a bool is an int
            raise ValueError(f"{name}: {field} must be an integer of at least 1: got {value!r}")
    for field in ("bos", "causal"):
        if not isinstance(settings[field], bool):
            raise ValueError(f"{name}: {field} must be true or false: got {settings[field]!r}")
    try:
        size(program.domain, symbols=len(set(symbols)), max_seq_len=settings["max_seq_len"])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return program


def _programs_of(module: str) -> Mapping:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        programs = importlib.import_module(module).PROGRAMS
    except (Exception, SystemExit) as error:  # whatever a user's module may raise
        raise ValueError(f"{module}: {type(error).__name__}: {error}") from None
    if not isinstance(programs, Mapping) or not programs:
        raise ValueError(f"{module}.PROGRAMS must be a dictionary of {FORM}: got {programs!r:.80}")
    return programs
