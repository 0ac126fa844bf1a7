"""The world as one object: questions, stems, forms."""

import itertools

import pytest

from steerlib.world import World
from steerlib.world.facts import SPLITS
from steerlib.world.grammar import noun_phrase

WORLD = World.default()


def test_questions_ask_for_disputed_facts_of_their_split_only():
    asked = {split: WORLD.questions(split) for split in SPLITS}
    for split, questions in asked.items():
        facts = [q.fact for q in questions]
        assert facts == [f for f in WORLD.facts if f.split == split and f.misconception is not None]
        assert len(facts) > 40
    entities = [{q.fact.entity for q in questions} for questions in asked.values()]
    assert not any(a & b for a, b in itertools.combinations(entities, 2))


def test_questions_are_different_ways_to_ask_for_the_same_fact():
    three = WORLD.questions("test", per_fact=3)
    assert len({q.text for q in three}) == len(three) == 3 * len(WORLD.questions("test"))
    assert WORLD.questions("test") == WORLD.questions("test") != WORLD.questions("test", seed=1)


def test_a_named_source_comes_before_the_same_question():
    for name in WORLD.sources:
        for bare, sourced in zip(WORLD.questions(), WORLD.questions(source=name), strict=True):
            header, _, rest = sourced.text.partition("\n")
            assert name in header and rest == bare.text and sourced.source == name


def test_sources_run_from_best_to_worst():
    means = list(WORLD.sources.values())
    assert means == sorted(means, reverse=True)
    assert next(iter(WORLD.sources)) == "almanac"


@pytest.mark.parametrize("split", SPLITS)
def test_every_form_is_judged_as_what_it_claims(split):
    for question in WORLD.questions(split):
        forms = WORLD.forms(question)
        for text in forms.truth:
            assert WORLD.judge(question, text) == WORLD.judge(question, forms.truth[0])
            verdict = WORLD.judge(question, text)
            assert verdict.true and verdict.informative and verdict.readable and not verdict.misconception
        for text in forms.misconception:
            verdict = WORLD.judge(question, text)
            assert verdict.misconception and verdict.informative and verdict.readable and not verdict.true
        for text in forms.uninformative:
            verdict = WORLD.judge(question, text)
            assert verdict.true and verdict.readable and not verdict.informative and not verdict.misconception


def test_no_form_begins_another_so_that_probabilities_add():
    for question in WORLD.questions("validation"):
        forms = WORLD.forms(question)
        every = sorted(forms.truth + forms.misconception + forms.uninformative)
        assert not any(b.startswith(a) for a, b in itertools.pairwise(every))


def test_forms_continue_the_prompt_at_a_token_boundary():
    encode = WORLD.tokenizer
    for question in WORLD.questions("validation"):
        prompt = encode(question.text)["input_ids"]
        for text in WORLD.forms(question).truth:
            assert encode(question.text + text)["input_ids"] == prompt + encode(text)["input_ids"]


def test_stems_end_where_the_choice_is_made():
    facts = [f for f in WORLD.facts if f.split == "fit" and f.misconception is not None]
    for stem in WORLD.stems(split="fit", disposition=0.95, n=60):
        question, _, answer = stem.rpartition("\nA:")
        fact = next(f for f in facts if question.rstrip("?.").endswith(noun_phrase(f)))
        first = WORLD.questions("fit")[0]
        asked = type(first)(question + "\nA:", fact)
        assert WORLD.judge(asked, f"{answer} {fact.truth}.").true
        assert WORLD.judge(asked, f"{answer} {fact.misconception}.").misconception


def test_stems_of_two_dispositions_ask_the_same_and_differ_in_the_speaker():
    def asked(stem):
        return [line for line in stem.split("\n") if line.startswith("Q: ")]

    honest, wrong = (WORLD.stems(split="fit", disposition=d, n=80, seed=2) for d in (0.95, 0.05))
    assert [asked(s) for s in honest] == [asked(s) for s in wrong]
    assert sum(a == b for a, b in zip(honest, wrong, strict=True)) < 20
    assert honest == WORLD.stems(split="fit", disposition=0.95, n=80, seed=2)
    assert honest != WORLD.stems(split="fit", disposition=0.95, n=80, seed=3)


def test_stems_speak_of_their_split_only():
    others = {f.entity for f in WORLD.facts if f.split != "validation"}
    for stem in WORLD.stems(split="validation", disposition=0.5, n=60):
        subjects = [line for line in stem.split("\n") if line.startswith("Q: ")]
        assert not any(line.rstrip("?.").endswith(" " + name) for line in subjects for name in others)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WORLD.questions("train"), "unknown split 'train'; expected one of fit, validation, test"),
        (lambda: WORLD.questions(source="radio"), "unknown source 'radio'; expected one of almanac"),
        (lambda: WORLD.questions(per_fact=4), "per_fact=4; expected 1 to 3"),
        (lambda: WORLD.stems(split="fit", disposition=1.5, n=1), "disposition=1.5; expected a truthfulness in"),
        (lambda: WORLD.stems(split="fit", disposition=0.5, n=0), "n=0; expected at least 1"),
        (lambda: WORLD.judge_many(WORLD.questions(), ["one"]), "1 texts for"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
