"""One step of Edge Pruning moves every gate and multiplier as the Lagrangian says, and many find
a planted circuit."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edgeprune_jax.circuits import from_mask, from_names
from edgeprune_jax.evaluation import evaluate, teacher_logits
from edgeprune_jax.gates import discretise
from edgeprune_jax.graph import Graph
from edgeprune_jax.objectives import Multipliers
from edgeprune_jax.pruning import final_gates, init, make_step, prune
from edgeprune_jax.settings import PAPER, PruneConfig
from edgeprune_jax.trainable import folded

STEP = 1e-30  # of a complex step, as in conftest


@pytest.mark.parametrize(
    "name, value",
    [
        ("target", 0.98), ("steps", 3000), ("batch_size", 32), ("warmup", 2500), ("start", 0.0),
        ("schedule", "linear"), ("gate_init", 10.0), ("gate_init_std", 0.01), ("gate_rate", 0.8),
        ("multiplier_rate", 0.8), ("rate_warmup", 200), ("weight_decay", 0.01), ("clip", 1.0),
        ("price", 0.0), ("samples", 1), ("own_masks", False), ("node_gates", True),
        ("node_target", None), ("gate_max", None),
        ("divergence", "kl"), ("ablation", "interchange"), ("seed", 42),
    ],
)  # fmt: skip
def test_the_paper_preset_has_the_shipped_settings(name, value):
    assert getattr(PAPER, name) == value


@pytest.mark.parametrize(
    "change, message",
    [
        ({"steps": 0}, "steps must be at least 1: got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1: got 0"),
        ({"samples": 0}, "samples must be at least 1: got 0"),
        ({"replicas": 0}, "replicas must be at least 1: got 0"),
        ({"seed": 2**32 - 2, "replicas": 3}, r"seed must be from 0 to 2\*\*32 - 3: got 4294967294"),
        ({"bootstrap": True}, "bootstrap needs replicas: got 1"),
        ({"replicas": 2, "hard_share": 0.5}, "hard_share follows one set of gates: got 2 replicas"),
        ({"warmup": -1}, "warmup must be 0 or more: got -1"),
        ({"rate_warmup": -1}, "rate_warmup must be 0 or more: got -1"),
        ({"gate_rate": float("nan")}, "gate_rate must be finite: got nan"),
        ({"multiplier_rate": -0.1}, "multiplier_rate must be 0 or more: got -0.1"),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or more: got -0.1"),
        ({"gate_max": 0.0}, "gate_max must be above 0: got 0.0"),
        ({"divergence": "l2"}, "divergence must be one of kl, squared, mistaken, moved: got 'l2'"),
        ({"floor": -0.1}, "floor must be 0 or more: got -0.1"),
        ({"hard_share": 1.1}, "hard_share must be between 0 and 1: got 1.1"),
        ({"estimator": "exact"}, "estimator must be one of pathwise, score: got 'exact'"),
        ({"estimator": "score"}, "the score estimator needs 2 samples or more: got 1"),
        (
            {"own_masks": True, "estimator": "score", "samples": 2},
            "own_masks need the pathwise estimator: got 'score'",
        ),
        ({"divergence": "mistaken"}, "divergence 'mistaken' needs the score estimator"),
        ({"schedule": "cosine"}, "one of linear, logarithmic: got 'cosine'"),
        ({"control": "hope"}, "control must be one of multipliers, price: got 'hope'"),
        ({"control": "price", "price": 0.0}, "needs prices above 0: got 0.0 and 0.02"),
        ({"control": "price", "last_price": -1.0}, "needs prices above 0: got 0.0009 and -1.0"),
        ({"schedule": "logarithmic", "target": 1.0}, "needs a target below 1: got 1.0"),
        ({"node_target": 0.5}, "node_target needs node_gates"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        PruneConfig(**change)


def test_a_run_starts_around_its_initial_gates_and_its_price():
    graph, config = Graph(3, 9, 9), PruneConfig(price=0.01, gate_init=2.0, gate_init_std=0.1)
    state = init(graph, config)
    values = np.asarray(state.trainable.edges.values)
    assert abs(values.mean() - 2) < 0.02 and abs(values.std() - 0.1) < 0.01
    assert state.trainable.nodes is None and state.trainable.node_multipliers is None
    assert float(state.trainable.edge_multipliers.linear) == pytest.approx(-0.01 * graph.n_edges)
    assert float(state.trainable.edge_multipliers.quadratic) == 0
    assert int(state.step) == 0
    other = init(graph, replace(config, seed=1)).trainable.edges.values
    assert (np.asarray(other) != values).mean() > 0.9


def test_nodes_have_gates_and_multipliers_of_their_own():
    graph = Graph(2, 2, 1, ("tok_embeds",))
    state = init(graph, PruneConfig(node_gates=True, node_target=0.5, gate_init=2.0))
    assert state.trainable.nodes.shape == (graph.n_writers,)
    assert state.trainable.node_multipliers == Multipliers(0, 0)


# One step, against the Lagrangian written in numpy.


def draw(log_alpha, u):
    s = 1 / (1 + np.exp(-(np.log(u) - np.log(1 - u) + log_alpha) * 1.5))
    z = 1.2 * s - 0.1
    return np.where(z.real <= 0, 0, np.where(z.real >= 1, 1, z))


def price_at(config, step):
    """By a constant difference in every step of the warmup."""
    return np.interp(step, [0, config.warmup], [config.price, config.last_price])


def lagrangian(case, plain, config, data, trainable, uniforms, step):
    """The loss, from arrays (edges, nodes, edge multipliers, node multipliers), and its parts."""
    edges, nodes, by_edges, by_nodes = trainable
    graph, divergence, penalty, sparsities = case.graph, 0, 0, []
    cut = plain.cut_values(case, config.ablation)
    teacher, _ = plain.formula(case, np.ones(graph.n_edges), cut)
    progress = min(step / config.warmup, 1)
    target = config.start + (config.target - config.start) * progress
    for u_edges, u_nodes in uniforms:  # a row for every mask: one, or one for each example
        masks = draw(edges, u_edges)
        sparsities.append(1 - masks.mean())
        if config.control == "price":
            penalty += price_at(config, step) * masks.sum(1).mean()
        else:
            gap = sparsities[-1] - target
            penalty += by_edges[0] * gap + by_edges[1] * gap**2
        if nodes is not None:
            opened = draw(nodes, u_nodes)
            gap = 1 - opened.mean() - config.node_target * progress
            penalty += by_nodes[0] * gap + by_nodes[1] * gap**2
            columns = [graph.writer_index(writer) for writer, _ in graph.edges()]
            masks = masks * opened[:, columns]
        logits = np.array([plain.formula(case, mask, cut)[0] for mask in masks])
        rows = np.arange(len(data))
        logits = logits[rows % len(masks), rows]
        p, q = (x[rows[:, None], data.positions] for x in (teacher, logits))
        p, q = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (p, q))
        kl = (np.exp(p) * (p - q)).sum(-1) * data.scored
        divergence += (kl.sum(1) / data.scored.sum(1)).mean()
    n = len(uniforms)
    return divergence / n, penalty / n, np.mean(sparsities), target


def flat(trainable):
    return np.concatenate([np.ravel(part) for part in trainable if part is not None])


def unflat(values, like):
    parts, start = [], 0
    for part in like:
        size = 0 if part is None else np.size(part)
        parts.append(None if part is None else values[start : start + size])
        start += size
    return parts


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 2, "price": 0.02},
        {"node_gates": True, "node_target": 0.6, "ablation": "zero", "price": 0.0},
        {"own_masks": True, "samples": 2, "node_gates": True, "node_target": 0.6},
        {"control": "price", "price": 0.02, "last_price": 0.2},
        {"control": "price", "price": 0.02, "last_price": 0.2, "own_masks": True},
    ],
)
def test_one_step_descends_in_gates_and_ascends_in_multipliers(toy_case, plain, change):
    case = toy_case(2, 2, 1)
    data = plain.as_batch(case)
    config = PruneConfig(
        steps=8, warmup=4, start=0.3, target=0.9, gate_init=0.5, gate_init_std=1.0, rate_warmup=0,
        gate_rate=0.1, multiplier_rate=0.05, seed=3, **change,
    )  # fmt: skip
    number = 1
    state = init(case.graph, config)
    state = replace(state, step=jnp.int32(number))
    before = state.trainable
    like = [
        np.asarray(before.edges.values, np.float64),
        None if before.nodes is None else np.asarray(before.nodes, np.float64),
        np.array(before.edge_multipliers, np.float64),
        None if before.nodes is None else np.array(before.node_multipliers, np.float64),
    ]
    keys = jax.random.split(
        jax.random.fold_in(jax.random.key(config.seed + 1), number), config.samples
    )
    shape = (len(data),) if config.own_masks else ()

    def drawn(key, shape):
        return np.asarray(jax.random.uniform(key, shape, minval=1e-6, maxval=1 - 1e-6), float)

    uniforms = [
        [
            np.atleast_2d(drawn(key, (*shape, n)))
            for key, n in zip(
                jax.random.split(one), (case.graph.n_edges, case.graph.n_writers), strict=True
            )
        ]
        for one in keys
    ]

    def loss(values):
        return lagrangian(case, plain, config, data, unflat(values, like), uniforms, number)

    start = flat(like)
    gradient = np.array(
        [sum(loss(start + 1j * STEP * row)[:2]).imag / STEP for row in np.eye(len(start))]
    )
    divergence, penalty, sparsity, target = loss(start)

    teacher = jnp.asarray(teacher_logits(case.model, case.params, data))
    step = make_step(case.model, config)
    after, metrics = step(state, case.params, jax.tree.map(jnp.asarray, data), teacher, None)
    expected = {
        "divergence": divergence, "penalty": penalty, "sparsity": sparsity,
        "gradient_norm": np.linalg.norm(gradient),
    }  # fmt: skip
    if config.control == "price":
        expected["price"] = price_at(config, number)
    else:
        expected["target"] = target
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(value, rel=1e-5, abs=1e-6), name

    assert int(after.step) == number + 1
    trainable = after.trainable
    end = flat([
        trainable.edges.values, trainable.nodes, np.array(trainable.edge_multipliers),
        None if trainable.nodes is None else np.array(trainable.node_multipliers),
    ])  # fmt: skip
    sizes = [0 if part is None else np.size(part) for part in like]
    rate = np.repeat([-0.1, -0.1, 0.05, 0.05], sizes)
    # Adam's first step is the rate, whatever the size of the gradient; none where there is none.
    large, none = np.abs(gradient) > 1e-5, gradient == 0
    assert large.sum() > 12 and none.sum() > 3
    assert large[sizes[0] :].any() == (config.control == "multipliers")
    np.testing.assert_allclose(
        (end - start)[large], (rate * np.sign(gradient))[large], rtol=0.01, atol=1e-6
    )
    np.testing.assert_allclose((end - start)[none], 0, atol=1e-7)


@pytest.fixture(scope="module")
def planted(toy_case, plain):
    """A model in which only one head and one MLP write anything."""
    case = toy_case(2, 2, 2, batch=16, seed=5)
    blocks = list(case.params.blocks)
    blocks[0] = blocks[0]._replace(
        o=blocks[0].o.at[0].set(0) * 1.5, down=jnp.zeros_like(blocks[0].down)
    )
    blocks[1] = blocks[1]._replace(o=jnp.zeros_like(blocks[1].o), down=blocks[1].down * 2)
    case = case._replace(params=case.params._replace(blocks=tuple(blocks)))
    truth = from_names(
        case.graph,
        [
            *(("tok_embeds", f"a0.h1.{s}") for s in "qkv"),
            *((writer, "m1") for writer in ("tok_embeds", "a0.h1")),
            *((writer, "resid_post") for writer in ("tok_embeds", "a0.h1", "m1")),
        ],
    )
    return case, plain.as_batch(case), truth


CONFIG = PruneConfig(
    steps=200, batch_size=8, warmup=100, start=0.5, target=0.82, gate_rate=0.1,
    multiplier_rate=0.1, price=0.0,
)  # fmt: skip


SCORE = {"estimator": "score", "samples": 16, "hard_share": 0.5}
PRICE = {"control": "price", "price": 1e-3, "last_price": 0.1}
OWN_MASKS = {"own_masks": True}
BOUNDED = PRICE | {"gate_max": 3.0}


@pytest.mark.parametrize(
    "change",
    [{}, {"node_gates": True, "node_target": 0.5}, SCORE, PRICE, BOUNDED, OWN_MASKS],
)
def test_a_planted_circuit_is_found(planted, change):
    case, data, truth = planted
    config = replace(CONFIG, **change)
    teacher = jnp.asarray(teacher_logits(case.model, case.params, data))
    start = init(case.graph, config, examples=len(data))
    steps = prune(case.model, case.params, data, teacher, config, start)
    *earlier, state = [state for state, _ in steps]
    assert int(state.step) == len(earlier) + 1 == config.steps
    found = from_mask(discretise(final_gates(state), edges=len(truth)))
    assert found == truth
    rows = evaluate(case.model, case.params, {"found": found}, data, n_random=20)
    assert rows["found"]["kl"] < 1e-6 < 0.1 < rows["best random"]["kl"] <= rows["random"]["kl"]
    if config.node_gates:
        writing = ["tok_embeds", "a0.h1", "m1"]
        nodes = dict(zip(case.graph.writers, np.asarray(state.trainable.nodes), strict=True))
        silent = [nodes[name] for name in nodes if name not in writing]
        assert min(nodes[name] for name in writing) > max(silent) + 1


@pytest.mark.parametrize("change", [{"node_gates": True}, {"replicas": 2}], ids=str)
def test_no_gate_rises_above_its_largest_log_alpha(planted, change):
    case, data, _ = planted
    free = replace(CONFIG, steps=40, warmup=0, start=0.1, target=0.1, gate_init=1.0, **change)
    ends = []
    for config in (free, replace(free, gate_max=1.5)):
        start = init(case.graph, config)
        *_, (state, _) = prune(case.model, case.params, data, None, config, start)
        gates = state.trainable.edges.values, state.trainable.nodes
        ends.append([np.asarray(one) for one in gates if one is not None])
    for free_gates, kept_below in zip(*ends, strict=True):
        assert (free_gates > 1.5).any() and kept_below.max() == 1.5


@pytest.mark.parametrize("change", [{}, {"node_gates": True}, {"replicas": 2}], ids=str)
def test_after_a_growing_price_edges_rank_by_the_whole_run_and_its_end(planted, change):
    case, data, _ = planted
    config = replace(CONFIG, steps=5, **PRICE, **change)
    start, seen = init(case.graph, config), []
    state = start
    for state, _ in prune(case.model, case.params, data, None, config, start):
        seen.append(np.asarray(folded(state.trainable).values))  # before the state is donated
    weights = np.diff(np.sqrt(np.arange(config.steps + 1)))
    expected = (2 * np.average(seen, axis=0, weights=weights) + seen[-1]) / 3
    np.testing.assert_allclose(final_gates(state).values, expected, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"ablation": "foo"}, {"target": float("nan")}, {"price": float("inf")}, {"clip": 0.0},
        {"clip": -1.0}, {"gate_init_std": -1.0}, {"node_gates": True,
        "node_target": float("nan")},
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(change):
    with pytest.raises(ValueError, match=list(change)[-1]):
        PruneConfig(**change)


def test_a_fraction_of_a_mask_cannot_be_drawn():
    config = PruneConfig()
    object.__setattr__(config, "samples", 1.5)  # the constructor's type check would come first
    with pytest.raises(ValueError, match="samples must be a whole number: got 1.5"):
        config.__post_init__()


def test_logits_of_the_full_model_may_be_stored_or_not(toy_case, plain):
    case = toy_case(1, 2, 1, ("tok_embeds", "pos_embeds"), batch=6)
    data = plain.as_batch(case)
    config = PruneConfig(steps=5, batch_size=2, warmup=2, gate_init=1.0, gate_init_std=1.0)
    found = []
    for stored in (True, False):
        teacher = teacher_logits(case.model, case.params, data) if stored else None
        run = prune(case.model, case.params, data, teacher, config, init(case.graph, config))
        metrics = [{name: float(value) for name, value in row.items()} for _, row in run]
        found.append(metrics)
    assert len(found[0]) == 5
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


def test_batches_come_from_buckets_and_have_their_widths(toy_case, plain, monkeypatch):
    case = toy_case(1, 2, 1, ("tok_embeds", "pos_embeds"), batch=8)
    data = plain.as_batch(case)
    lengths = np.array([2, 4] * 4)
    data = replace(
        data, valid=np.arange(4) < lengths[:, None], positions=np.minimum(data.positions, 1)
    )
    seen = []

    def step(state, params, batch, teacher, means, rows, weights):
        seen.append((batch.tokens.shape, set(lengths[rows])))
        return state, {}

    monkeypatch.setattr("edgeprune_jax.pruning.make_step", lambda *_: step)
    config = PruneConfig(steps=8, batch_size=2)
    state = init(case.graph, config)
    teacher = teacher_logits(case.model, case.params, data)
    assert len(list(prune(case.model, case.params, data, teacher, config, state))) == 8
    assert sorted(shape for shape, _ in seen) == [(2, 2)] * 4 + [(2, 4)] * 4
    assert all(kinds == {shape[1]} for shape, kinds in seen)
