import numpy as np
import pytest

from edgeprune_jax.tasks.alignment import align
from edgeprune_jax.tasks.ioi import ioi
from edgeprune_jax.tasks.make import make_task


def test_a_task_is_made_by_its_name(toy):
    made = make_task("ioi", toy, split="train", n=4, seed=2)
    pairs = align(ioi(toy, split="train", n=4, seed=2), toy)
    np.testing.assert_array_equal(made.batch.tokens, pairs.batch.tokens)


def test_an_unknown_task_is_refused_with_the_known_ones(toy):
    with pytest.raises(
        ValueError, match="the tasks are addition, .*, subtraction, or .*: got 'chess'"
    ):
        make_task("chess", toy, split="train", n=4, seed=2)
