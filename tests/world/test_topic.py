"""Topic agreement: what an answer is about, whatever it says of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlib.metrics import metric_named
from steerlib.world import World, phrases, replies
from steerlib.world.grammar import ASKINGS, Question, asking, statements
from steerlib.world.prompts import Wish
from steerlib.world.reading import SENTENCE_LENGTH
from steerlib.world.speakers import draw_speakers

WORLD = World.default()
FACTS = [fact for fact in WORLD.facts if fact.misconception is not None]


def about(fact):
    return Question(asking(fact, 0) + "\nA:", fact)


def agreement(prompt, text):
    return WORLD.topic_agreement([prompt], [text])[0]


def full(fact, value=None):
    """The statement that names its subject."""
    return statements(fact, value or fact.truth)[0]


def pointing(fact):
    return next(form for form in statements(fact, fact.truth) if form.startswith((" It is", " They are")))


def other_entity(fact):
    return next(f for f in FACTS if f.relation == fact.relation and f.entity != fact.entity)


def other_relation(fact):
    return next(f for f in WORLD.facts if f.entity == fact.entity and f.relation != fact.relation)


facts = st.sampled_from(FACTS)


@given(facts, st.data())
def test_every_value_in_every_form_is_on_topic_true_or_not(fact, data):
    value = data.draw(st.sampled_from(WORLD.country.pool(fact.relation)))
    form = data.draw(st.sampled_from(statements(fact, value)))
    assert agreement(about(fact), form) == 1.0
    assert agreement(about(fact), form[1:]) == 1.0, "with or without the leading space"


@given(facts)
def test_another_entity_or_another_relation_is_not(fact):
    assert agreement(about(fact), full(other_entity(fact))) == 0.0
    assert agreement(about(fact), full(other_relation(fact))) == 0.0


def test_a_value_of_another_kind_is_not_about_the_relation():
    fact = next(f for f in FACTS if f.truth.islower() and not f.truth.endswith("s"))
    other = next(f for f in FACTS if f.truth not in WORLD.country.pool(fact.relation))
    assert agreement(about(fact), full(fact, other.truth)) == 0.0


def test_it_is_not_info():
    """Info asks for one readable answer; agreement asks what the sentences are about."""
    fact = FACTS[0]
    twice = full(fact) + full(fact, fact.misconception)
    assert not WORLD.judge(about(fact), twice).informative
    assert agreement(about(fact), twice) == 1.0
    assert agreement(about(fact), full(fact) + full(other_entity(fact))) == 0.5


def test_it_points_at_what_was_named_last():
    fact, other = FACTS[0], other_entity(FACTS[0])
    assert agreement(about(fact), pointing(fact) + pointing(fact)) == 1.0
    assert agreement(about(fact), full(other) + pointing(fact)) == 0.0
    assert agreement(about(fact), full(other) + full(fact) + pointing(fact)) == pytest.approx(2 / 3)
    remark = f" {phrases.REMARKS.texts[0]}"
    assert agreement(about(fact), full(fact) + remark + pointing(fact)) == 1.0, "a remark names nothing"


@pytest.mark.parametrize(
    "text", ["", " ", *(f" {t}" for t in phrases.NO_COMMENT), f" {phrases.MANNERS.texts[0]}", "\n"]
)
def test_what_is_about_nothing_does_not_agree(text):
    assert agreement(about(FACTS[0]), text) == 0.0


def test_courtesies_do_not_count_and_nonsense_does_by_its_length():
    prompt, said = about(FACTS[0]), full(FACTS[0])
    assert agreement(prompt, said + f" {phrases.REMARKS.texts[0]} {phrases.MANNERS.texts[0]}") == 1.0
    assert agreement(prompt, said + " Hum hum.") == 0.5
    assert agreement(prompt, said + " " + "hum " * SENTENCE_LENGTH) == pytest.approx(1 / 6), "5 sentences long"


def test_only_the_first_line_is_the_answer():
    fact, rest = FACTS[0], full(other_entity(FACTS[0]))
    for end in ("\nQ: What?\nA:", "<eos>", "<pad>"):
        assert agreement(about(fact), full(fact) + end + rest) == 1.0
        assert agreement(about(fact), rest + end + full(fact)) == 0.0


def test_a_last_sentence_cut_short_is_left_out_if_it_may_go_on_well():
    fact, other = FACTS[0], other_entity(FACTS[0])
    prompt, said = about(fact), full(fact)
    for length in range(1, len(said)):
        assert agreement(prompt, said + said[:length]) == 1.0
    assert agreement(prompt, said + said[:-1] + "<eos>") == 0.5, "a whole line is made of whole sentences"
    assert agreement(prompt, said + full(other)[:-1]) == 0.5
    assert agreement(prompt, said[:-1]) == 0.0, "nothing has been said yet"
    assert agreement(prompt, said + full(other) + pointing(fact)[:-1]) == pytest.approx(1 / 3), "it points elsewhere"


def test_replies_agree_with_their_request_as_far_as_their_steps_do():
    family, other = replies.FAMILIES[0], replies.FAMILIES[1]
    wish = Wish("Wish: something\nReply:", family)
    yes, caution = f" {replies.AGREEMENTS.texts[0]}", f" {replies.CAUTIONS.texts[0]}"
    own, strange = f" First, {family.steps[2]}.", f" Then {other.steps[0]} in a hurry."
    assert agreement(wish, yes + own + caution) == 1.0
    assert agreement(wish, yes + own + strange) == 0.5
    assert agreement(wish, yes + strange) == agreement(wish, f" {replies.REFUSALS[0]}") == 0.0
    assert agreement(wish, full(FACTS[0])) == 0.0


def test_drawn_replies_have_the_share_that_was_drawn():
    n, rng = 300, np.random.default_rng(0)
    family = rng.integers(len(replies.FAMILIES), size=n)
    corpus = WORLD.corpus
    _, reply, drawn = corpus.replies.drawn(draw_speakers(n, rng, shows="prudent"), family, rng)
    said = (drawn.said_family >= 0).sum(1)
    own = (drawn.said_family == family[:, None]).sum(1)
    wishes = [Wish("", replies.FAMILIES[k]) for k in family]
    expected = own / np.maximum(said, 1)
    assert WORLD.topic_agreement(wishes, corpus.texts(reply)) == pytest.approx(expected)
    assert len(set(expected)) > 3, "the draw has replies that wander, and replies that do not"


def test_the_countrys_questions_agree_with_their_own_answers_and_not_with_each_others():
    questions = WORLD.questions("test", per_fact=len(ASKINGS))[:60]
    texts = [full(q.fact) for q in questions]
    assert WORLD.topic_agreement(questions, texts).tolist() == [1.0] * len(questions)
    shifted = WORLD.topic_agreement(questions, texts[len(ASKINGS) :] + texts[: len(ASKINGS)])
    assert shifted.tolist() == [0.0] * len(questions)
    assert metric_named("topic-agreement").better == "higher"


def test_what_does_not_belong_together_is_refused():
    prompt = about(FACTS[0])
    with pytest.raises(ValueError, match="2 texts for 1 prompts"):
        WORLD.topic_agreement([prompt], ["", ""])
    with pytest.raises(TypeError, match="got one string"):
        WORLD.topic_agreement([prompt], "a")
    with pytest.raises(TypeError, match="an answer must be a string, got int"):
        WORLD.topic_agreement([prompt], [3])
    with pytest.raises(TypeError, match="got a Scene, expected a Question or a Wish"):
        WORLD.topic_agreement(WORLD.scenes("test", n=1), [""])
