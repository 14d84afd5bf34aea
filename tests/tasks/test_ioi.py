import inspect
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune_jax.tasks import ioi
from edgeprune_jax.tasks.ioi import SCENES, T1, TEST, VALIDATION, templates
from edgeprune_jax.tasks.make import make_task
from edgeprune_jax.tasks.prompts import single_tokens
from edgeprune_jax.tasks.splits import SPLITS
from edgeprune_jax.tasks.words import NAMES, OBJECTS, PLACES, TEMPLATES

splits = st.sampled_from(SPLITS)
seeds = st.integers(0, 2**32)


def draw(names, *, split, n, seed, scenes=SCENES):
    pairs = ioi.draw(names, templates(split), scenes, split=split, n=n, seed=seed)
    return [(("".join(p.clean)), "".join(p.corrupted), p.answer, p.foil) for p in pairs]


def people(text: str) -> list[str]:
    """The names in a text, in order, found without its template."""
    return [word for word in re.findall(r"\w+", text) if word in NAMES]


def pattern(template: str) -> re.Pattern:
    return re.compile(re.sub(r"\\{\w+\\}", r"\\w+", re.escape(template)))


def test_the_words_are_what_the_task_needs():
    for words in (TEMPLATES, NAMES, PLACES, OBJECTS):
        assert len(set(words)) == len(words)
    assert len(TEMPLATES) >= 18 and len(NAMES) >= 60
    for template in TEMPLATES:
        slots = re.findall(r"\{(\w+)\}", template)
        assert sorted(slots) == ["first", "giver", "object", "place", "second"]
        assert [s for s in slots if s in ("first", "second", "giver")] == [
            "first",
            "second",
            "giver",
        ]
        assert not re.search(r"(^|[^ ])\{", template) and not template.endswith(" ")
        assert not people(template.format_map(dict.fromkeys(slots, "it")))
    assert not any(thing[0] in "aeiou" for thing in OBJECTS)


def test_the_split_is_the_seeded_draw():
    drawn = random.Random(0).sample(range(len(TEMPLATES)), 6)
    assert (*TEST, *VALIDATION) == tuple(drawn)
    assert sorted(sum((templates(split) for split in SPLITS), ())) == sorted(TEMPLATES)


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_shows_its_own_templates_and_no_other(split):
    texts = [text for text, *_ in draw(NAMES, split=split, n=400, seed=0)]
    seen = {t for t in TEMPLATES for text in texts if pattern(t).fullmatch(text)}
    assert seen == set(templates(split))


@settings(deadline=None)
@given(split=splits, seed=seeds, count=st.integers(5, len(NAMES)))
def test_the_answer_is_the_one_who_does_not_act(split, seed, count):
    for text, corrupted, answer, foil in draw(NAMES[:count], split=split, n=20, seed=seed):
        first, second, giver = people(text)
        assert first != second and giver in (first, second)
        assert answer == f" {second if giver == first else first}"
        assert foil == f" {giver}"
        assert len({first, second, *people(corrupted)}) == 5
        for word in people(text):
            text = text.replace(f" {word}", " X")
        for word in people(corrupted):
            corrupted = corrupted.replace(f" {word}", " X")
        assert text == corrupted


@pytest.mark.parametrize("split", SPLITS)
def test_both_name_orders_are_as_frequent(split):
    rows = draw(NAMES, split=split, n=1000, seed=3)
    assert 400 < sum(f" {people(text)[0]}" == answer for text, _, answer, _ in rows) < 600


@settings(deadline=None, max_examples=25)
@given(task=st.sampled_from(["ioi", "ioi-t1", "ioi-instruction"]), split=splits, seed=seeds)
def test_pairs_differ_at_the_three_names_and_nowhere_else(tokenizer, task, split, seed):
    made = make_task(task, tokenizer, split=split, n=16, seed=seed)
    names = single_tokens([f" {name}" for name in NAMES], tokenizer).values()
    batch = made.batch
    assert len(batch) == 16 and made.left_out == 0
    assert batch.valid[:, -1].any()
    for row in range(16):
        answer, foil = batch.targets[row, 0], batch.foils[row, 0]
        at = np.flatnonzero(batch.tokens[row] != batch.corrupted[row])
        assert sorted(batch.tokens[row][at]) == sorted([answer, foil, foil])
        assert not np.isin(np.delete(batch.tokens[row], at), list(names)).any()
        assert len({answer, foil, *batch.corrupted[row][at].tolist()}) == 5
        assert np.isin(batch.corrupted[row][at], list(names)).all()
        assert batch.positions[row, 0] == batch.valid[row].sum() - 1


def test_the_batch_is_the_text(tokenizer):
    batch = make_task("ioi", tokenizer, split="test", n=30, seed=5).batch
    for row, pair in enumerate(ioi.ioi(tokenizer, split="test", n=30, seed=5)):
        ids = tokenizer.encode("".join(pair.clean) + pair.answer).ids
        assert batch.tokens[row][batch.valid[row]].tolist() == ids[:-1]
        assert batch.targets[row, 0] == ids[-1]


@settings(deadline=None, max_examples=30)
@given(split=splits, seed=seeds)
def test_a_seed_gives_the_same_prompts_and_another_gives_others(split, seed):
    rows = draw(NAMES, split=split, n=20, seed=seed)
    assert rows == draw(NAMES, split=split, n=20, seed=seed)
    assert rows != draw(NAMES, split=split, n=20, seed=seed + 1)


def test_prompts_are_distinct_up_to_the_last_one_there_is():
    most = 2 * 2 * 5 * 4 * 30
    rows = draw(NAMES[:5], split="validation", n=most, seed=0, scenes=SCENES[:30])
    assert len({text for text, *_ in rows}) == most
    with pytest.raises(ValueError, match=f"validation split holds {most} .* {most + 1} asked"):
        draw(NAMES[:5], split="validation", n=most + 1, seed=0, scenes=SCENES[:30])


def test_one_template_has_scenes_of_its_own_in_each_split(toy):
    scenes = []
    for split in SPLITS:
        texts = ["".join(p.clean) for p in ioi.ioi_t1(toy, split=split, n=400, seed=0)]
        assert all(pattern(T1).fullmatch(text) for text in texts)
        scenes.append({(p, o) for t in texts for p in PLACES for o in OBJECTS
                       if f" {p}," in t and f" {o} " in t})  # fmt: skip
    assert not scenes[0] & scenes[1] and not scenes[0] & scenes[2] and not scenes[1] & scenes[2]


def test_names_of_several_tokens_do_not_occur(toy):
    pairs = ioi.ioi(toy, split="train", n=500, seed=0)
    seen = {name for p in pairs for name in people("".join((*p.clean, *p.corrupted)))}
    assert seen == set(NAMES[: len(NAMES) // 2])


def test_smollm2_knows_enough_names(smollm2):
    assert len(single_tokens([f" {name}" for name in NAMES], smollm2)) >= 40


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="0 asked for"):
        draw(NAMES, split="train", n=0, seed=0)
    with pytest.raises(ValueError, match="train, validation, test: got 'dev'"):
        inspect.unwrap(templates)("dev")  # the test run's type check would refuse it first
    with pytest.raises(ValueError, match="5 different names.* 4 of ours"):
        draw(NAMES[:4], split="train", n=1, seed=0)
