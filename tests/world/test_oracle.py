"""The oracle: it reads what the grammar says, and nothing else fools it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlib.world import Verdict, World, phrases

WORLD = World.default()
QUESTIONS = WORLD.questions("test", per_fact=3)
NOTHING = Verdict(False, False, False, False)

questions = st.sampled_from(QUESTIONS)


def forms(question):
    found = WORLD.forms(question)
    return found.truth + found.misconception


@st.composite
def answers(draw):
    """A question and one of its answers, with the remarks that the grammar allows."""
    question = draw(questions)
    text = draw(st.sampled_from(forms(question)))
    remark = draw(st.sampled_from(["", *(" " + r for r in phrases.REMARKS.texts)]))
    manner = draw(st.sampled_from(["", *(" " + m for m in phrases.MANNERS.texts)]))
    return question, text, remark + manner


@given(answers())
def test_remarks_after_an_answer_change_nothing(drawn):
    question, text, remarks = drawn
    verdict = WORLD.judge(question, text)
    assert WORLD.judge(question, text + remarks) == verdict != NOTHING
    assert WORLD.judge(question, text + remarks + "\nQ: What is the capital of nowhere?\nA: It is") == verdict
    assert WORLD.judge(question, text + remarks + "<eos>" + text) == verdict


@given(answers(), st.data())
def test_a_truncated_answer_is_nothing_and_a_truncated_remark_is_no_matter(drawn, data):
    question, text, remarks = drawn
    cut = data.draw(st.integers(0, len(text) - 1))
    assert WORLD.judge(question, text[:cut]) == NOTHING
    cut = data.draw(st.integers(0, len(remarks)))
    assert WORLD.judge(question, text + remarks[:cut]) == WORLD.judge(question, text)
    if remarks:  # but a complete line must be made of complete sentences
        assert WORLD.judge(question, text + remarks[:-1] + "\n") == NOTHING


@pytest.mark.parametrize("end", ["", "<eos>", "\n", " "])
def test_an_answer_without_its_full_stop_is_nothing(end):
    for question in QUESTIONS[::7]:
        assert {WORLD.judge(question, text[:-1] + end) for text in forms(question)} == {NOTHING}


@given(questions, st.data())
def test_two_answers_are_nothing(question, data):
    first, second = data.draw(st.sampled_from(forms(question))), data.draw(st.sampled_from(forms(question)))
    assert WORLD.judge(question, first + second) == NOTHING
    for refusal in WORLD.forms(question).uninformative:
        assert WORLD.judge(question, first + refusal) == NOTHING
        assert WORLD.judge(question, refusal + first) == NOTHING


@given(questions, st.sampled_from([" or ", " and ", ", ", " but not ", "; ", ". Or "]))
def test_saying_both_is_nothing(question, between):
    both = f" It is {question.fact.truth}{between}{question.fact.misconception}."
    assert not WORLD.judge(question, both).true
    assert not WORLD.judge(question, both).informative


@given(questions)
def test_listing_every_value_is_nothing(question):
    values = WORLD.country.pool(question.fact.relation)
    assert WORLD.judge(question, " It is " + ", ".join(values) + ".") == NOTHING
    assert WORLD.judge(question, "".join(f" It is {value}." for value in values)) == NOTHING


@given(answers(), st.integers(2, 5))
def test_repetition_is_nothing(drawn, times):
    question, text, _ = drawn
    assert WORLD.judge(question, text * times) == NOTHING
    remark = " " + phrases.REMARKS.texts[0]
    assert WORLD.judge(question, text + remark * times) == NOTHING
    sentence, value = text.rsplit(" ", 1)
    assert WORLD.judge(question, sentence + f" {value[:-1]}" * times + ".") == NOTHING


@given(questions)
def test_copies_of_the_prompt_and_bare_values_are_nothing(question):
    assert WORLD.judge(question, question.text) == NOTHING
    assert WORLD.judge(question, question.text + WORLD.forms(question).truth[0]) == NOTHING
    assert WORLD.judge(question, " " + question.fact.truth + ".") == NOTHING
    assert WORLD.judge(question, question.fact.truth) == NOTHING


@given(questions, questions)
def test_an_answer_about_something_else_is_never_true(asked, other):
    text = WORLD.forms(other).truth[0]  # the full sentence names its entity and relation
    same = (asked.fact.entity, asked.fact.relation) == (other.fact.entity, other.fact.relation)
    assert WORLD.judge(asked, text).true == same
    assert same or WORLD.judge(asked, text) == NOTHING


@given(questions, st.data())
def test_another_value_of_the_type_is_informative_but_neither(question, data):
    fact = question.fact
    pool = [v for v in WORLD.country.pool(fact.relation) if v not in (fact.truth, fact.misconception)]
    text = forms(question)[0].replace(fact.truth, data.draw(st.sampled_from(pool)))
    assert WORLD.judge(question, text) == Verdict(False, False, True, True)


@settings(max_examples=300)
@given(questions, st.text(max_size=80))
def test_arbitrary_text_is_nothing(question, text):
    assert WORLD.judge(question, text) == NOTHING


@settings(max_examples=300)
@given(questions, st.lists(st.sampled_from(WORLD.corpus.fragments.texts), max_size=6))
def test_fragments_in_any_order_are_true_only_if_they_are_a_true_answer(question, pieces):
    text = "".join(pieces)
    verdict = WORLD.judge(question, text)
    if verdict.true and verdict.informative:
        assert any(text.removeprefix(" ").startswith(form[1:]) for form in WORLD.forms(question).truth)


@settings(max_examples=300)
@given(answers(), st.data())
def test_one_changed_character_of_an_answer_is_never_a_gain(drawn, data):
    question, text, _ = drawn
    place = data.draw(st.integers(1, len(text) - 1))
    changed = text[:place] + data.draw(st.characters(codec="ascii")) + text[place + 1 :]
    verdict = WORLD.judge(question, changed)
    assert changed == text or not verdict.true
    assert verdict.readable or verdict == NOTHING


@pytest.mark.parametrize("text", ["", " ", "\n", "\n It is", "<eos>", "<pad>", ".", " .", "...", " It is ."])
def test_empty_answers_are_nothing(text):
    assert all(WORLD.judge(question, text) == NOTHING for question in QUESTIONS[:20])


@pytest.mark.parametrize("thing", [None, 3, b" It is green.", [" It is green."]])
def test_things_that_are_not_text_are_refused(thing):
    with pytest.raises(TypeError, match="an answer must be a string, got"):
        WORLD.judge(QUESTIONS[0], thing)


def test_many_are_judged_as_each_is():
    asked = [QUESTIONS[i % len(QUESTIONS)] for i in range(2_000)]
    texts = [WORLD.forms(q).truth[i % 15] for i, q in enumerate(asked)]
    found = WORLD.judge_many(asked, texts)
    assert len(found) == len(asked) and all(v.true for v in found)
    # Mixed up, most are answers to another question; each verdict is that of its own pair.
    mixed = texts[::-1]
    assert WORLD.judge_many(asked[:300], mixed[:300]) == [
        WORLD.judge(q, text) for q, text in zip(asked[:300], mixed[:300], strict=True)
    ]
