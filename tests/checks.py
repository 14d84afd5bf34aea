"""What tests share: masks, weights of logits, how near is near enough, a small checkpoint."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

BOTH = ("tok_embeds", "pos_embeds")
ONES, ZEROS, SOFT, HARD = range(4)
# Compiling is most of the time here, and what is compiled are thousands of tiny products.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


LETTERS = "abcdefghijklmnopqrstuvwxyz"


def save_letter_llama(folder):
    """Makes a folder of a Llama of one layer, quick to compile, that knows words of one letter."""
    fixture = Path(__file__).parent / "fixtures" / "models" / "llama_gqa_tied"
    shutil.copytree(fixture, folder)
    config = json.loads((folder / "config.json").read_text())
    vocab = {word: i for i, word in enumerate(["<unk>", *LETTERS])}
    assert len(vocab) <= config["vocab_size"]
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    weights = load_file(folder / "model.safetensors")
    weights = {name: weight for name, weight in weights.items() if ".layers.1." not in name}
    save_file(weights, folder / "model.safetensors")


def masks(graph, seed=0):
    """Ones, zeros, a mask in between, and a random circuit; in the order of the names above."""
    rng, n = np.random.default_rng(seed), graph.n_edges
    return np.stack([np.ones(n), np.zeros(n), rng.uniform(0, 1, n), rng.random(n) < 0.5])


def cotangent(case, seed=1):
    """Random weights of the logits, 0 at padding."""
    stream = next(iter(case.parts.embed(case.params64, case.tokens).values()))
    shape = (*case.tokens.shape, case.parts.unembed(case.params64, 0 * stream).shape[-1])
    return np.random.default_rng(seed).normal(size=shape) * case.valid[..., None]


def assert_close(got, expected, share):
    """No entry is off by more than a share of the largest."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=share * np.abs(expected).max())


class Outcome(NamedTuple):
    """Logits, and the gradients of a weighted sum of them."""

    logits: np.ndarray
    mask: np.ndarray
    params: Any
    ablation: Any


def check_arrays(case, plain, weight, mask, cut, outcome, share, smallest):
    """Gradients of parameters and ablated writes, each array within a share of its own size.

    An array is taken along random signs and at the largest entry found, whose true value is its
    size, or at least `smallest` times the largest array's: a saturated softmax leaves gradients
    that are differences of nearly equal numbers, and of a bias of GPT-2's keys it leaves none.
    """
    rng, (leaves, tree) = np.random.default_rng(2), jax.tree.flatten(case.params64)

    def along_parameter(position, by):
        moved = [by if at == position else np.zeros_like(leaf) for at, leaf in enumerate(leaves)]
        return plain.slope(case, weight, mask, cut, params_by=jax.tree.unflatten(tree, moved))

    def along_writer(name, by):
        return plain.slope(case, weight, mask, cut, cut_by={name: by})

    slopes = {
        **{partial(along_parameter, at): g for at, g in enumerate(jax.tree.leaves(outcome.params))},
        **{
            partial(along_writer, name): g
            for name, g in plain.by_name(case, outcome.ablation).items()
        },
    }
    got, expected = [], []
    for slope, gradient in slopes.items():
        gradient = np.asarray(gradient, np.float64)
        largest = np.zeros_like(gradient)
        largest.flat[np.abs(gradient).argmax()] = 1
        directions = (rng.choice((-1.0, 1.0), gradient.shape), largest)
        got.append([(gradient * by).sum() for by in directions])
        expected.append([slope(by) for by in directions])
    got, expected = np.array(got), np.array(expected)
    sizes = np.abs(expected[:, 1])
    sizes = np.maximum(sizes, smallest * sizes.max())
    np.testing.assert_allclose(got / sizes[:, None], expected / sizes[:, None], rtol=0, atol=share)
