"""Compiles RASP programs to folders that `edgeprune_jax.models.tracr` loads.

    python -m tracr_models.compile [NAME ...] [--to FOLDER]

Without names, the paper's two, where they lie. This is the only file that imports the compiler.
The compiler knows of programs that it gets wrong in silence. So a program is refused if its
weights disagree with the RASP interpreter anywhere on its domain, or if `models.tracr` makes
something else of them than the compiler's own forward pass does.
"""

import argparse
import inspect
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save
from tracr.compiler import lib
from tracr.compiler.assemble import AssembledTransformerModel
from tracr.compiler.compiling import compile_rasp_to_model
from tracr.rasp import causal_eval, rasp

from edgeprune_jax import atomic
from edgeprune_jax.models import tracr
from tracr_models.domain import Domain, logits, prompts
from tracr_models.entry import Program, find_entry

BOS, PAD = "BOS", "compiler_pad"  # the reference's names: token ids are in the order of names
TOLERANCE = 0.01  # of a number: a fifth of what a circuit is allowed
ROUNDING = 1e-4  # between two forward passes in float32
PAPER = ("reverse", "xproportion")


def compile_program(name: str, program: Program, folder: str | Path) -> None:
    """Writes `config.json` and `model.safetensors`, the same bytes every time.

    Raises `ValueError`, and writes nothing, for a program that does not compile or not faithfully.
    """
    with _refusing(name, "does not compile"), _silence():
        expression = build_expression(program.source)
        compiled = compile_rasp_to_model(
            expression, set(program.vocabulary), program.settings["max_seq_len"],
            causal=program.settings["causal"], compiler_bos=BOS, compiler_pad=PAD,
            mlp_exactness=program.settings["mlp_exactness"],
        )  # fmt: skip
        files = _files(name, program, compiled, expression)
    with tempfile.TemporaryDirectory() as draft:
        for file, content in files.items():
            (Path(draft) / file).write_bytes(content)
        _verify(Path(draft), program.domain, compiled, expression)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        atomic.write(Path(folder) / file, content)


def build_expression(source: Callable) -> rasp.SOp:
    """The RASP expression of a source, numbered so that equal sources compile to equal weights.

    The compiler sorts the directions of the stream by name, and an unnamed expression is named
    by a number that counts everything this process has built before.
    """
    modules = {"rasp": rasp, "lib": lib}
    expression = source(**{name: modules[name] for name in inspect.signature(source).parameters})
    if not isinstance(expression, rasp.SOp):
        raise TypeError(f"the function must return a RASP sequence: got {expression!r:.80}")
    seen: dict[int, Any] = {}
    queue: list[Any] = [expression]
    for node in queue:  # grows: breadth first
        if id(node) not in seen:
            seen[id(node)] = node
            queue.extend(node.children)
    for number, node in enumerate(seen.values()):
        node.unique_id = f"{number:04d}"
    return expression


def _files(
    name: str, program: Program, compiled: AssembledTransformerModel, expression: rasp.SOp
) -> dict[str, bytes]:
    """The contents of a compiled program's folder."""
    shape = compiled.model_config
    ids, values = cast(Any, compiled.input_encoder), cast(Any, compiled.output_encoder)
    config = tracr.Config(
        name=name, layers=shape.num_layers, heads=shape.num_heads, key_size=shape.key_size,
        width=len(compiled.residual_labels), mlp_size=shape.mlp_hidden_size,
        max_seq_len=program.settings["max_seq_len"], causal=shape.causal,
        vocabulary=tuple(ids.encoding_map), bos=ids.bos_encoding, pad=ids.pad_encoding,
        outputs=tuple(values.encoding_map) if rasp.is_categorical(expression) else None,
    )  # fmt: skip
    entries = {
        "model_type": "tracr", **config._asdict(),
        "domain": program.domain._asdict(), "residual": compiled.residual_labels,
    }  # fmt: skip
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(entries[key])}" for key in entries)
    return {
        "config.json": f"{{\n{lines}\n}}\n".encode(),
        "model.safetensors": save(_tensors(compiled, config, expression.label)),
    }


def _tensors(
    compiled: AssembledTransformerModel, config: tracr.Config, label: str
) -> dict[str, np.ndarray]:
    """The weights by their names in the file, shaped as `tracr.layout` says."""
    weights, heads = compiled.params, (config.heads, config.key_size)
    out = {
        "tokens": weights["token_embed"]["embeddings"],
        "positions": weights["pos_embed"]["embeddings"],
        "unembedding": _unembedding(compiled.residual_labels, config.outputs, label),
    }
    for layer in range(config.layers):
        attn, mlp = f"transformer/layer_{layer}/attn", f"transformer/layer_{layer}/mlp"
        block = {}
        for short in "qkv":
            linear = weights[f"{attn}/{dict(q='query', k='key', v='value')[short]}"]
            block[short] = linear["w"].T.reshape(*heads, config.width)
            block[f"{short}_bias"] = linear["b"].reshape(heads)
        block["o"] = weights[f"{attn}/linear"]["w"].reshape(*heads, config.width)
        block["o_bias"] = weights[f"{attn}/linear"]["b"]
        block["up"] = weights[f"{mlp}/linear_1"]["w"].T
        block["up_bias"] = weights[f"{mlp}/linear_1"]["b"]
        block["down"], block["down_bias"] = (weights[f"{mlp}/linear_2"][key] for key in "wb")
        out |= {f"blocks.{layer}.{key}": value for key, value in block.items()}
    # safetensors writes an array's memory as it lies, so a transposed view would be wrong.
    return {key: np.ascontiguousarray(value, np.float32) for key, value in out.items()}


def _unembedding(residual: list[str], outputs: tuple | None, label: str) -> np.ndarray:
    """Picks the output's directions out of the stream. The compiler has no weights for it."""
    names = [label] if outputs is None else [f"{label}:{value}" for value in outputs]
    if any(residual.count(name) != 1 for name in names):
        raise ValueError(f"each of {names} must be one direction of the stream: got {residual}")
    return np.eye(len(residual), dtype=np.float32)[:, [residual.index(name) for name in names]]


def _verify(
    folder: Path, domain: Domain, compiled: AssembledTransformerModel, expression: rasp.SOp
) -> None:
    """Raises `ValueError` where compiler, weights and interpreter do not all say the same."""
    config, loaded = tracr.read_config(folder), tracr.load(folder)
    evaluate = causal_eval.evaluate if config.causal else rasp.evaluate
    tokens, valid = prompts(config, domain)
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    outputs, lengths = logits(loaded, tokens, valid, positions), valid.sum(-1)
    forward = jax.jit(compiled.forward)
    for length in np.unique(lengths):  # the compiler's model has no padding
        rows = np.flatnonzero(lengths == length)
        stream = forward(
            compiled.params, jnp.asarray(tokens[rows, :length])
        ).transformer_output.output
        theirs = np.asarray(stream) @ np.asarray(loaded.params.unembedding)
        if (off := np.abs(outputs[rows, :length] - theirs).max()) > ROUNDING:
            raise ValueError(f"{config.name}: loaded, its outputs are {off:.2g} off the compiler's")
    for ids, length, got in zip(tokens, lengths, outputs, strict=True):
        symbols = [config.vocabulary[ident] for ident in ids[1:length]]
        with _refusing(config.name, f"has no value for {symbols}"):
            expected = evaluate(expression, symbols)
        if not all(map(lambda row, value: _says(config, row, value), got[1:length], expected)):
            raise ValueError(
                f"{config.name}: of {symbols} the interpreter makes {expected}, "
                f"the weights {config.decode(got[1:length])}"
            )


def _says(config: tracr.Config, row: np.ndarray, value: Any) -> bool:
    """Whether logits stand for a value. None stands for no class, as `domain` explains."""
    if config.outputs is None:
        return value is not None and abs(float(row[0]) - value) < TOLERANCE
    if value is None:
        return bool(row.max() < 0.5)
    return bool(row.max() > 0.5) and config.outputs[int(row.argmax())] == value


@contextmanager
def _refusing(name: str, what: str) -> Iterator[None]:
    """Whatever RASP, the compiler or a user's function raises, as a `ValueError` of one line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{name} {what}: {type(error).__name__}: {text}") from None


@contextmanager
def _silence() -> Iterator[None]:
    """No warnings of values that cannot occur: whether all is well is checked afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tracr_models.compile")
    parser.add_argument("names", nargs="*", metavar="NAME", default=PAPER)
    parser.add_argument("--to", type=Path, default=Path(__file__).parent, metavar="FOLDER")
    options = parser.parse_args(arguments)
    try:
        programs = [find_entry(name) for name in options.names]
    except ValueError as error:
        parser.error(str(error))
    for name, program in programs:
        start = time.perf_counter()
        compile_program(name, program, options.to / name)
        graph = tracr.read_config(options.to / name).graph
        print(f"{name}: {graph.layers} layers, {graph.heads} heads, {graph.n_edges} edges, "
              f"{time.perf_counter() - start:.1f} s")  # fmt: skip


if __name__ == "__main__":
    main()
