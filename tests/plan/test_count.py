"""Operations, bytes and messages of compiled programs, against XLA's counts and by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from edgeprune_jax.models import llama
from edgeprune_jax.plan import count, hlo, messages
from edgeprune_jax.pruning import init, make_step
from edgeprune_jax.settings import PruneConfig
from edgeprune_jax.tasks.batch import Batch

TINY = llama.LlamaConfig(layers=2, heads=4, kv_heads=2, head_dim=8, width=32, hidden=64, vocab=50)
STEPS = 3


def array(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, dtype)


def compiled(function, *inputs):
    return jax.jit(function).lower(*inputs).compile()


def counted(program):
    return count.count(hlo.parse(program.as_text()))


def test_products_in_nested_loops_count_as_often_as_they_run():
    def inner(x, w):
        return jax.lax.fori_loop(0, 3, lambda _, x: jnp.tanh(x @ w), x)

    def outer(x, w):
        return jax.lax.scan(lambda x, w: (inner(x, w), None), x, w)[0]

    program = compiled(outer, array(16, 32), array(5, 32, 32))
    assert counted(program).flops == 5 * 3 * 2 * 16 * 32 * 32
    assert program.cost_analysis()["flops"] < counted(program).flops / 5


def test_a_loop_that_depends_on_data_is_refused_by_name():
    def until_small(x):
        return jax.lax.while_loop(lambda x: x.sum() > 1, lambda x: x / 2, x)

    with pytest.raises(ValueError, match="trip count of the loop while"):
        counted(compiled(until_small, array(8)))


@pytest.mark.parametrize("steps", [3, 4])
def test_a_loop_without_a_written_count_is_run(steps):
    program = compiled(lambda x: jax.lax.fori_loop(0, steps, lambda _, x: x @ x, x), array(8, 8))
    text = program.as_text()
    assert "known_trip_count" in text
    silent = hlo.parse(text.replace("known_trip_count", "unknown"))
    assert count.count(silent).flops == steps * 2 * 8**3


@pytest.mark.parametrize(
    "settings",
    [
        dict(window_strides=(1, 1), padding="SAME"),
        dict(window_strides=(2, 3), padding=[(2, 1), (0, 3)]),
        dict(window_strides=(1, 1), padding=[(7, 0), (0, 0)], lhs_dilation=(3, 2)),
        dict(window_strides=(2, 1), padding="VALID", rhs_dilation=(2, 2)),
        dict(window_strides=(1, 1), padding="SAME", feature_group_count=2),
    ],
)
def test_a_convolution_counts_the_entries_that_meet(settings):
    groups = settings.get("feature_group_count", 1)

    def convolve(image, kernel):
        return jax.lax.conv_general_dilated(image, kernel, **settings)

    inputs = array(2, 6, 9, 11), array(4, 6 // groups, 3, 2)
    text = compiled(convolve, *inputs).as_text()
    flops = jax.jit(convolve).lower(*inputs).cost_analysis()["flops"]
    assert count.count(hlo.parse(text)).flops == flops


def test_a_slice_is_read_and_an_update_written_alone():
    def sum_rows(x):
        def body(row, total):
            return total + jax.lax.dynamic_index_in_dim(x, row, keepdims=False)

        return jax.lax.fori_loop(0, 100, body, jnp.zeros(1000))

    moved = counted(compiled(sum_rows, array(100, 1000))).bytes_accessed
    assert 100 * 3 * 4000 <= moved < 100 * 4 * 4000  # not 100 times the whole of x

    def fill(x):
        def body(row, x):
            return jax.lax.dynamic_update_index_in_dim(x, jnp.full(1000, row, x.dtype), row, 0)

        return jax.lax.fori_loop(0, 100, body, x)

    moved = counted(compiled(fill, array(100, 1000))).bytes_accessed
    assert 100 * 4000 <= moved < 100 * 2 * 4000 + 3 * 400_000


def test_messages_are_counted_by_kind_with_what_a_ring_sends():
    mesh = Mesh(jax.devices()[:4], "x")

    def placed(*spec):
        return NamedSharding(mesh, PartitionSpec(*spec))

    columns, rows = placed(None, "x"), placed("x")
    inputs = (
        jax.ShapeDtypeStruct((8, 64), jnp.float32, sharding=columns),
        jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=rows),
    )

    def product(x, w):
        return jax.lax.with_sharding_constraint(x @ w, placed())

    found = counted(jax.jit(product).lower(*inputs).compile())
    assert found.collectives == {"all-reduce": 1}
    assert found.sent["all-reduce"] == 2 * 3 / 4 * 8 * 16 * 4
    assert found.flops == 2 * 8 * 16 * 16

    def gather(x):
        return jax.lax.with_sharding_constraint(x, placed())

    found = counted(jax.jit(gather).lower(inputs[0]).compile())
    assert found.collectives == {"all-gather": 1}
    assert found.sent["all-gather"] == 3 / 4 * 8 * 64 * 4


SPREAD = """
%fused (own: bf16[4]) -> bf16[16] {
  %own = bf16[4]{0} parameter(0)
  ROOT %all-gather = bf16[16]{0} all-gather(%own), channel_id=5, replica_groups={{0,1,2,3}}
}

ENTRY %main (x: bf16[4], y: bf16[4]) -> bf16[16] {
  %x = bf16[4]{0} parameter(0)
  %y = bf16[4]{0} parameter(1)
  %start = bf16[16]{0} fusion(%x), kind=kCustom, calls=%fused
  %done = bf16[16]{0} fusion(%x), kind=kCustom, calls=%fused
  ROOT %other = bf16[16]{0} all-gather(%y), channel_id=6, replica_groups={{0,1,2,3}}
}
"""


def test_a_message_that_goes_on_during_several_fusions_is_one():
    found = count.count(hlo.parse(SPREAD))
    assert found.collectives == {"all-gather": 2}
    assert found.sent["all-gather"] == 2 * 3 / 4 * 16 * 2


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("{{0,1,2},{3,4,5}}", 3), ("[2,4]<=[8]", 4), ("[2,4]<=[4,2]T(1,0)", 4),
        ("mesh['a'=2,'b'=8] {'b'}", 8), ("mesh['a'=2,'b'=8] {'a','b'}", 16),
        ("mesh['a'=16] {'a':(2)4}", 4),
    ],
)  # fmt: skip
def test_every_way_to_write_a_group_is_read(text, size):
    one = hlo.Instruction("x", (), "all-reduce", (), "", f"replica_groups={text}, more=1", False)
    assert messages.group_size(one) == size


def step_program(unroll: int):
    """Training steps on new prompts in one program, in a loop or one by one, on four devices."""
    mesh = Mesh(jax.devices()[:4], "model")
    graph, params = llama.graph(TINY), llama.abstract_params(TINY)
    config = PruneConfig(batch_size=2)
    step = make_step(llama.build(TINY), config)

    def split(leaf):
        spec = (*(None,) * (leaf.ndim - 1), "model")
        place = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    tokens, answers = array(STEPS, 2, 8, dtype="int32"), array(STEPS, 2, 1, dtype="int32")
    batches = Batch(
        tokens, tokens, array(STEPS, 2, 8, dtype="bool"), answers, array(STEPS, 2, 1), answers,
        answers,
    )  # fmt: skip

    def steps(state, params, batches, teacher):
        def one(state, batch):
            return step(state, params, batch, teacher, None)

        return jax.lax.scan(one, state, batches, unroll=unroll)

    state = jax.eval_shape(lambda: init(graph, config))
    return compiled(steps, state, jax.tree.map(split, params), batches, array(2, 1, TINY.vocab))


def test_steps_in_a_loop_count_as_steps_one_after_the_other():
    rolled, unrolled = map(counted, (program := step_program(1), step_program(STEPS)))
    assert rolled.flops == pytest.approx(unrolled.flops, rel=0.05)
    assert rolled.bytes_accessed == pytest.approx(unrolled.bytes_accessed, rel=0.05)
    assert rolled.collectives.total() == pytest.approx(unrolled.collectives.total(), rel=0.05)
    assert rolled.sent.total() == pytest.approx(unrolled.sent.total(), rel=0.05)
    assert program.cost_analysis()["flops"] < rolled.flops / (STEPS - 1)
