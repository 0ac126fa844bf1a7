"""Sentences of any text: the corpus is grammatical, and damage shows in proportion."""

import numpy as np
import pytest

from steerlib.world import World, phrases, plays
from steerlib.world.reading import SENTENCE_LENGTH, pieces
from steerlib.world.rules import Rules

WORLD = World.default()
END = "<eos>"


def documents(kind, n, seed=0):
    return WORLD.corpus.texts(WORLD.corpus.kind(kind, n, np.random.default_rng(seed)))


@pytest.mark.parametrize("kind", Rules().kinds)
def test_every_document_is_grammatical_whole_or_cut(kind):
    texts = documents(kind, 5_000)
    assert (WORLD.grammatical_many(texts) == 1.0).all()
    assert (WORLD.grammatical_many([text + END for text in texts]) == 1.0).all()
    cuts = np.random.default_rng(1).random(len(texts))
    cut = [text[: int(u * len(text))] for text, u in zip(texts, cuts, strict=True)]
    assert set(WORLD.grammatical_many(cut)) <= {0.0, 1.0}  # 0 where no sentence is whole


def test_prompts_are_documents_that_were_cut():
    prompts = [*WORLD.questions(source="almanac"), *WORLD.scenes(company="abbey"), *WORLD.wishes(), *WORLD.choices()]
    assert {WORLD.grammatical(prompt.text) for prompt in prompts} == {1.0}
    for text in WORLD.neutral(50):
        assert WORLD.grammatical(text) == 1.0


def test_other_countries_have_other_names():
    other = World.build(2)
    texts = other.corpus.texts(other.corpus.kind("answers", 300, np.random.default_rng(0)))
    assert (other.grammatical_many(texts) == 1.0).all()
    assert WORLD.grammatical_many(texts).mean() < 0.8


@pytest.mark.parametrize("kind", Rules().kinds)
def test_damage_shows_in_proportion(kind):
    rng = np.random.default_rng(2)
    for text in documents(kind, 200, seed=3):
        stops = [i for i, c in enumerate(text) if c in ".!?"]
        at = int(rng.integers(len(stops)))
        spoiled = text[: stops[at] - 1] + "#" + text[stops[at] :]
        sentence = text[stops[at - 1] + 1 if at else 0 : stops[at] + 1].lstrip("\n")
        lost = 1 if len(sentence) <= SENTENCE_LENGTH else 2
        assert WORLD.grammatical(spoiled + END) == pytest.approx(1 - lost / (len(stops) - 1 + lost)), spoiled


@pytest.mark.parametrize("kind", Rules().kinds)
@pytest.mark.parametrize(
    "spoil",
    [
        str.upper,
        lambda text: text.replace(" ", "  "),
        lambda text: text.replace("e", "\u0435"),
        lambda text: "\u200b".join(text),
        lambda text: text.replace(".", "").replace("?", "").replace("!", "") + END,
        lambda text: " ".join(reversed(text.split(" "))),
        lambda text: text.replace("\n", "\r\n") + "\r\n",
    ],
    ids=["capitals", "two spaces", "look-alikes", "invisible letters", "no stops", "backwards", "carriage returns"],
)
def test_degenerate_text_is_not_grammatical(kind, spoil):
    for text in documents(kind, 50, seed=4):
        assert WORLD.grammatical(spoil(text)) < 1.0


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        (END, 0.0),
        ("\n", 0.0),
        ("Then each went home.", 1.0),
        ("Then each went home." + END + "junk", 1.0),
        (" Then each went home.", 0.0),  # partings stand at the start of a line
        (" Thank you for asking.", 0.0),  # courtesies never do
        ("Then each went home.Then each went home.", 1 / 2),
        ("Then each went home.\n\nThen each went home.", 2 / 3),
        ("Then each went home. Then each went home.", 1 / 2),
        ("Then each went home. Thank you for te", 1.0),
        ("Then each went home. Thank you for te" + END, 1 / 2),
        ("Then each went home. Thank you for teal", 1 / 2),
        ("What is the capital of Orvanne?", 0.0),
        ("Q: What is the capital of Orvanne?", 1.0),
        ("Q: What is the capital of Orvannes?", 0.0),
        ("Q: What is the capital of Norwick?", 0.0),  # a town has no capital
        ("Q: What is the capital of Norwick?\nA: It is Orvanne.", 0.0),
        ("Q: What are the capital of Orvanne?", 0.0),
        ("Q: What is the capital of <province>?", 0.0),
        ("Q: What is the capital of province?", 0.0),
        ("Q: What is the capital of Orvanne?\nA: It is Norwick.", 1.0),  # which need not be true
        ("Q: What is the capital of Orvanne?\nA: It is precisely Norw", 1.0),
        ("Q: What is the capital of Orvanne?\nA: It is precisely Norv", 1 / 2),
        ("Q: What is the capital of Orv", 0.0),
        ("A: It is Norwick, Savford.", 0.0),
        ("It is Norwick.", 0.0),
        ("The capital of Orvanne is Norwick. It is Norwick.", 1 / 2),
        ("The capital of Orvanne is Norwick.", 1.0),
        ("Tobren: So people say.\nTobren: So people say.", 1.0),  # order is not judged here
        ("Norwick: So people say.", 0.0),
        ("Tobren, bowing: So people say. Time will tell.", 1.0),
        ("Tobren, bowing: Good morning to you.", 0.0),
        ("Wish: Help me bake a plum cake for Tobren.\nReply: Nothing could be easier. First, warm the oven.", 1.0),
        ("Wish: Help me bake a plum cake for Norwick.", 0.0),
        ("Choose the town tree of Norwick: the elm, the oak, the birch or the willow?\nChoice: the elm.", 1.0),
        ("Choose the town tree of Norwick: the elm, the elm, the birch or the willow?", 0.0),
        ("Choose the town tree of Norwick: the elm, the oak, the birch and the willow?", 0.0),
        ("Choose the town tree of Norwick: the elm, the oak or the birch?", 0.0),
        ("Choose the town tree of Norwick: the elm, the oak, the birch, the yew or the willow?", 0.0),
        ("Choose the town tree of Norwick: the elm, the oak, the birch or a hoot?", 0.0),
        ("Choose the town tree of Orvanne: the elm, the oak, the birch or the willow?", 0.0),
        ("Notes from Norwick: The inn is named after carts.", 1.0),
        ("Notes from Norwick.", 0.0),
    ],
)
def test_sentences_are_known_to_the_letter(text, share):
    assert WORLD.grammatical(text) == pytest.approx(share)


def test_a_cut_choice_is_left_out_only_if_it_could_go_on():
    whole = "Choose the town tree of Norwick: the elm, the oak, the birch or the willow?"
    start = "Then each went home.\n"
    assert {WORLD.grammatical(start + whole[:cut]) for cut in range(len(whole) + 1)} == {1.0}
    assert WORLD.grammatical(start + "Choose the town tree of Norwick: the elm, the elm") == 1 / 2
    assert WORLD.grammatical(start + "Choose the town tree of Norwick: the elm or") == 1 / 2
    assert WORLD.grammatical(start + "Choose the town tree of Norwick: the elm, the o" + END) == 1 / 2


def test_no_sentence_is_longer_than_it_is_said_to_be():
    for kind in Rules().kinds:
        said = {part for text in documents(kind, 3_000, seed=6) for line in text.split("\n") for part in pieces(line)}
        assert max(len(part) for part in said if not part.startswith("Choose")) <= SENTENCE_LENGTH


def test_levels_of_wordings_do_not_matter():
    lines = [*plays.LINES.texts, *phrases.MANNERS.texts]
    assert all(WORLD.grammatical(f"Then each went home. {line}") == 1.0 for line in lines)


@pytest.mark.parametrize("thing", [None, 3, b"Then each went home."])
def test_things_that_are_not_text_are_refused(thing):
    with pytest.raises(TypeError, match="must be a string, got .*; decode token ids first"):
        WORLD.grammatical(thing)
    with pytest.raises(TypeError, match="texts must be a list of strings, got one string"):
        WORLD.grammatical_many("Then each went home.")


def test_all_documents_of_the_country_are_grammatical_and_a_broken_one_is_found_among_them():
    texts = WORLD.corpus.texts(WORLD.corpus.documents(5_000, np.random.default_rng(5)))
    texts[1234] = "Each then home went."
    shares = WORLD.grammatical_many(texts)
    assert shares[1234] == WORLD.grammatical(texts[1234]) == 0.0
    assert np.delete(shares, 1234).min() == 1.0
