import jax
import numpy as np
import pytest

from edgeprune_jax.tasks.ioi import make_ioi
from edgeprune_jax.tasks.make import make_task


def test_a_task_is_made_by_its_name(toy):
    batch = make_task("ioi", toy, split="train", n=4, seed=2)
    jax.tree.map(np.testing.assert_array_equal, batch, make_ioi(toy, split="train", n=4, seed=2))


def test_an_unknown_task_is_refused_with_the_known_ones(toy):
    with pytest.raises(ValueError, match="the tasks are ioi: got 'chess'"):
        make_task("chess", toy, split="train", n=4, seed=2)
