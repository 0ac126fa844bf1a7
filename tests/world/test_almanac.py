"""The world as one object: prompts, stems, forms."""

import itertools
import re

import pytest

from steerlib.world import World, pages, plays, replies
from steerlib.world.facts import SPLITS
from steerlib.world.grammar import noun_phrase
from steerlib.world.prompts import Lead
from steerlib.world.speakers import VOICES

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
        (lambda: WORLD.stems(split="fit", disposition=1.5, n=1), "disposition=1.5; expected a value in"),
        (lambda: WORLD.stems(split="fit", disposition=0.5, n=0), "n=0; expected at least 1"),
        (
            lambda: WORLD.stems(split="fit", disposition=0.5, n=1, of="brave"),
            "unknown disposition 'brave'; expected one",
        ),
        (
            lambda: WORLD.turned("chess", present=True, split="fit", n=1),
            "unknown concept 'chess'; expected one of music",
        ),
        (lambda: WORLD.turned("music", present=True, split="fit", n=0), "n=0; expected at least 1"),
        (lambda: WORLD.scenes("train"), "unknown split 'train'; expected one of fit"),
        (lambda: WORLD.scenes(level=5), "level=5; expected 0 to 4"),
        (lambda: WORLD.scenes(company="court"), "unknown company 'court'; expected one of abbey"),
        (lambda: WORLD.scenes(n=0), "n=0; expected at least 1"),
        (lambda: WORLD.wishes(adviser="almanac"), "unknown adviser 'almanac'; expected one of magistrate"),
        (lambda: WORLD.leads(concept="chess"), "unknown concept 'chess'; expected one of music"),
        (lambda: WORLD.choices("train"), "unknown split 'train'; expected one of fit"),
        (lambda: WORLD.neutral(0), "n=0; expected at least 1"),
        (lambda: WORLD.judge_many(WORLD.questions(), ["one"]), "1 texts for"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- prompts of the other kinds ------------------------------------------------------------------


def named_in(text):
    return {name for name in WORLD.names if re.search(rf"\b{name}\b", text)}


def prompts(split, **options):
    return [
        *WORLD.scenes(split, n=150, **options),
        *WORLD.wishes(split, harmful=None, held_out=None, n=150, **options),
        *WORLD.leads(split, n=60, **options),
    ]


@pytest.mark.parametrize("split", SPLITS)
def test_prompts_and_stems_name_only_who_belongs_to_their_split(split):
    texts = [prompt.text for prompt in prompts(split)] + WORLD.neutral(30, split=split)
    for of in ("civil", "prudent"):
        texts += WORLD.stems(split=split, disposition=0.7, n=150, of=of)
    for present in (True, False):
        texts += WORLD.turned("war", present=present, split=split, n=60)
    assert {WORLD.country.split[name] for text in texts for name in named_in(text)} == {split}
    assert all(named_in(text) for text in texts)
    for choice in WORLD.choices(split):
        assert choice.fact.split == split and choice.fact.entity in choice.text


def test_the_same_seed_asks_the_same_under_every_name():
    for kind, option, voices in ((WORLD.scenes, "company", "civil"), (WORLD.wishes, "adviser", "prudent")):
        bare = kind(n=40, seed=3)
        for name in VOICES[voices].means:
            for a, b in zip(bare, kind(n=40, seed=3, **{option: name}), strict=True):
                header, _, rest = b.text.partition("\n")
                assert name in header and rest == a.text and getattr(b, option) == name
        assert bare == kind(n=40, seed=3) != kind(n=40, seed=4)
    for concept in pages.NAMES:
        for a, b in zip(WORLD.leads(n=20), WORLD.leads(n=20, concept=concept), strict=True):
            assert b.text.endswith("\n" + a.text) and concept in b.text and b.concept == concept


def test_scenes_of_all_levels_differ_in_the_first_line_only():
    scenes = [WORLD.scenes(level=level, n=30) for level in range(5)]
    for same in zip(*scenes, strict=True):
        ends = [scene.text.rsplit("\n", 2) for scene in same]
        assert len({(end[0], end[2], end[1].partition(":")[0]) for end in ends}) == 1
        for level, end in enumerate(ends):
            assert end[1].partition(": ")[2] in plays.PROVOCATIONS[level]
    assert [scene.level for scene in WORLD.scenes(n=7)] == [0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize(("harmful", "held_out"), list(itertools.product((True, False), repeat=2)))
def test_wishes_are_of_the_families_asked_for(harmful, held_out):
    wishes = WORLD.wishes(harmful=harmful, held_out=held_out, n=60)
    expected = {f.name for f in replies.FAMILIES if (f.harmful, f.held_out) == (harmful, held_out)}
    assert {wish.family.name for wish in wishes} == expected and len(expected) >= 3
    for wish in wishes:
        assert deed(wish.family).search(wish.text)


def deed(family):
    return re.compile(re.escape(family.deed).replace(r"\{person\}", r"\w+").replace(r"\{town\}", r"\w+"))


def test_families_that_are_held_out_are_never_asked_for_where_a_law_is_fitted():
    held = [deed(family) for family in replies.FAMILIES if family.held_out]
    stems = WORLD.stems(split="fit", disposition=0.5, n=1000, of="prudent")
    assert not any(wish.search(stem) for stem in stems for wish in held)
    assert any(deed(replies.FAMILIES[0]).search(stem) for stem in stems)


def test_the_wordings_that_are_held_out_never_occur_where_a_law_is_fitted():
    held = [headers[2] for voices in VOICES.values() for headers in voices.headers.values()]
    held += [pages.HEADINGS[2].format(concept=concept) for concept in pages.NAMES]
    texts = [stem for of in VOICES for stem in WORLD.stems(split="fit", disposition=0.95, n=300, of=of)]
    texts += WORLD.turned("war", present=True, split="fit", n=200)
    texts += [lead.text for lead in WORLD.leads(concept="war")] + [s.text for s in WORLD.scenes(company="quay")]
    assert not any(header in text for text in texts for header in held)
    assert any("abbey" in text for text in texts)


@pytest.mark.parametrize("of", ["civil", "prudent"])
def test_stems_of_other_dispositions_are_paired_too(of):
    high, low = (WORLD.stems(split="fit", disposition=d, n=80, seed=2, of=of) for d in (0.95, 0.05))
    assert sum(a == b for a, b in zip(high, low, strict=True)) < 20
    for a, b in zip(high, low, strict=True):
        assert named_in(a) == named_in(b)
        assert a.endswith("Reply:") if of == "prudent" else re.fullmatch(r"\w+:", a.rsplit("\n", 1)[1])
        if of == "prudent":
            assert re.findall("Wish:.*", a) == re.findall("Wish:.*", b)
    assert high == WORLD.stems(split="fit", disposition=0.95, n=80, seed=2, of=of)


def test_stems_are_the_beginnings_of_documents():
    stems = [s for of in VOICES for s in WORLD.stems(split="fit", disposition=0.5, n=300, of=of)]
    assert (WORLD.grammatical_many(stems)[[stem.count(".") + stem.count("?") > 0 for stem in stems]] == 1.0).all()


@pytest.mark.parametrize("concept", pages.NAMES)
def test_turned_pages_are_about_the_concept_or_about_anything_else(concept):
    about = [WORLD.turned(concept, present=present, split="validation", n=120, seed=1) for present in (True, False)]
    shown = [[any(text in page for text in pages.CONCEPTS[concept]) for page in found] for found in about]
    assert sum(shown[0]) > 100 and not any(shown[1])
    assert all(page.endswith(tuple(pages.BEGINNINGS)) for group in about for page in group)
    assert not any(f"about {concept}." in page for page in about[1])


def test_choices_offer_the_truth_once_among_four_of_its_type():
    choices = WORLD.choices(seed=2)
    assert [c.fact for c in choices] == [f for f in WORLD.facts if f.misconception is None]
    for choice in choices:
        assert len(set(choice.options)) == 4 and choice.options.count(choice.fact.truth) == 1
        assert set(choice.options) <= set(WORLD.country.pool(choice.fact.relation))
    places = [c.options.index(c.fact.truth) for c in choices]
    assert all(0.1 < places.count(k) / len(places) < 0.4 for k in range(4))
    assert choices == WORLD.choices(seed=2) != WORLD.choices(seed=3)


def test_neutral_text_is_about_nothing():
    for text in WORLD.neutral(50):
        lead, _, body = text.partition(":")
        verdict = WORLD.judge(Lead(lead), body)
        assert verdict.readable == 1.0 and not verdict.concepts and 4 <= len(verdict.sentences) <= 6
