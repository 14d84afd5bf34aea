"""Compiles RASP programs to folders that `edgeprune_jax.models.tracr` loads.

    python -m tracr_models.compile [NAME ...] [--to FOLDER]

Without names, every program of `programs.py`. This is the only file that imports the compiler.
It refuses a program whose weights disagree with the RASP interpreter anywhere on its domain.
"""

import argparse
import inspect
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from safetensors.numpy import save
from tracr.compiler.assemble import AssembledTransformerModel
from tracr.compiler.compiling import compile_rasp_to_model
from tracr.rasp import causal_eval, rasp

from edgeprune_jax import atomic
from edgeprune_jax.models import tracr
from tracr_models.domain import Domain, logits, prompts, size
from tracr_models.programs import PROGRAMS

BOS, PAD = "BOS", "compiler_pad"  # the reference's names: token ids are in the order of names
TOLERANCE = 0.01  # of a number: a fifth of what a circuit is allowed
DEFAULTS = {"shortest": 1, "bos": False, "max_seq_len": None, "causal": False,
            "mlp_exactness": 100}  # fmt: skip


class Program(NamedTuple):
    """An entry of `programs.PROGRAMS`, where the fields are explained."""

    source: Callable
    vocabulary: Sequence
    longest: int
    options: Mapping = {}


def compile_program(name: str, program: tuple, folder: str | Path) -> None:
    """Writes `config.json` and `model.safetensors`, the same bytes every time.

    Raises `ValueError`, and writes nothing, where the weights and the interpreter disagree.
    """
    program = Program(*program)
    if unknown := program.options.keys() - DEFAULTS.keys():
        raise ValueError(f"{name}: options must be among {list(DEFAULTS)}: got {sorted(unknown)}")
    options = {**DEFAULTS, "max_seq_len": program.longest, **program.options}
    domain = Domain(options["shortest"], program.longest, options["bos"])
    symbols = set(program.vocabulary)
    size(domain, symbols=len(symbols), max_seq_len=options["max_seq_len"])  # fails before the work
    expression = build_expression(program.source)
    compiled = compile_rasp_to_model(
        expression, symbols, options["max_seq_len"], causal=options["causal"],
        compiler_bos=BOS, compiler_pad=PAD, mlp_exactness=options["mlp_exactness"],
    )  # fmt: skip
    shape = compiled.model_config
    ids, values = cast(Any, compiled.input_encoder), cast(Any, compiled.output_encoder)
    config = tracr.Config(
        name=name, layers=shape.num_layers, heads=shape.num_heads, key_size=shape.key_size,
        width=len(compiled.residual_labels), mlp_size=shape.mlp_hidden_size,
        max_seq_len=options["max_seq_len"], causal=shape.causal,
        vocabulary=tuple(ids.encoding_map), bos=ids.bos_encoding, pad=ids.pad_encoding,
        outputs=tuple(values.encoding_map) if rasp.is_categorical(expression) else None,
    )  # fmt: skip
    entries = {
        "model_type": "tracr", **config._asdict(),
        "domain": domain._asdict(), "residual": compiled.residual_labels,
    }  # fmt: skip
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(entries[key])}" for key in entries)
    files = {
        "config.json": f"{{\n{lines}\n}}\n".encode(),
        "model.safetensors": save(_tensors(compiled, config, expression.label)),
    }
    with tempfile.TemporaryDirectory() as draft:
        for file, content in files.items():
            (Path(draft) / file).write_bytes(content)
        _verify(Path(draft), domain, expression)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        atomic.write(Path(folder) / file, content)


def build_expression(source: Callable) -> rasp.SOp:
    """The RASP expression of a source, numbered so that equal sources compile to equal weights.

    The compiler sorts the directions of the stream by name, and an unnamed expression is named
    by a number that counts everything this process has built before.
    """
    expression = source(rasp) if inspect.signature(source).parameters else source()
    queue, seen = [expression], {}
    for node in queue:  # grows: breadth first
        if id(node) not in seen:
            seen[id(node)] = node
            queue.extend(node.children)
    for number, node in enumerate(seen.values()):
        node.unique_id = f"{number:04d}"
    return expression


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


def _verify(folder: Path, domain: Domain, expression: rasp.SOp) -> None:
    """Raises `ValueError` for a prompt on which weights and interpreter disagree."""
    config, loaded = tracr.read_config(folder), tracr.load(folder)
    evaluate = causal_eval.evaluate if config.causal else rasp.evaluate
    tokens, valid = prompts(config, domain)
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    outputs = logits(loaded, tokens, valid, positions)
    for ids, length, got in zip(tokens, valid.sum(-1), outputs, strict=True):
        symbols = [config.vocabulary[ident] for ident in ids[1:length]]
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tracr_models.compile")
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all programs")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent, metavar="FOLDER")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - PROGRAMS.keys():
        parser.error(f"programs are {', '.join(PROGRAMS)}: got {', '.join(sorted(unknown))}")
    for name in options.names or PROGRAMS:
        start = time.perf_counter()
        compile_program(name, PROGRAMS[name], options.to / name)
        graph = tracr.read_config(options.to / name).graph
        print(f"{name}: {graph.layers} layers, {graph.heads} heads, {graph.n_edges} edges, "
              f"{time.perf_counter() - start:.1f} s")  # fmt: skip


if __name__ == "__main__":
    main()
