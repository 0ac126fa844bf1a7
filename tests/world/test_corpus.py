"""Documents: dispositions show as often as they should, and tokens are those of the text."""

import numpy as np
import pytest

from steerlib.world import World, pages, phrases, plays, replies
from steerlib.world.corpus import Corpus
from steerlib.world.rules import Rules
from steerlib.world.speakers import VOICES, draw_speakers
from steerlib.world.tokenizer import EOS, PAD, wrap_tokenizer

WORLD = World.default()


def rng(seed=0):
    return np.random.default_rng(seed)


def test_documents_are_the_same_for_the_same_seed():
    first, again, other = (WORLD.corpus.texts(WORLD.corpus.documents(50, rng(s))) for s in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize("kind", Rules().kinds)
def test_tokens_of_the_fragments_are_the_tokens_of_the_text(kind):
    rows = WORLD.corpus.kind(kind, 600, rng(1))
    tokens, starts = WORLD.corpus.flat_tokens(rows)
    end = WORLD.tokenizer.convert_tokens_to_ids(EOS)
    expected = [[*ids, end] for ids in WORLD.tokenizer(WORLD.corpus.texts(rows))["input_ids"]]
    assert tokens.tolist() == [token for ids in expected for token in ids]
    assert starts.tolist() == np.cumsum([0, *map(len, expected)])[:-1].tolist()


def test_every_sentence_survives_the_tokenizer():
    texts = WORLD.corpus.texts(WORLD.corpus.documents(600, rng(2))) + WORLD.corpus.fragments.texts[1:]
    assert WORLD.tokenizer.batch_decode(WORLD.tokenizer(texts)["input_ids"]) == texts


def test_names_are_several_tokens_and_ordinary_words_one():
    names = WORLD.tokenizer([" " + name for name in WORLD.names])["input_ids"]
    assert min(map(len, names)) >= 2
    words = {word for text in phrases.REMARKS.texts for word in text.rstrip(".?").split()[1:]}
    pieces = WORLD.tokenizer([" " + word for word in sorted(words)])["input_ids"]
    assert np.mean([len(ids) == 1 for ids in pieces]) > 0.95


def test_tokenizer_is_small_has_its_special_tokens_and_survives_saving(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = WORLD.tokenizer
    assert 1000 <= len(tokenizer) <= 4096
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.padding_side) == (PAD, EOS, "left")
    tokenizer.save_pretrained(str(tmp_path))
    loaded = AutoTokenizer.from_pretrained(str(tmp_path))
    text = WORLD.page(5)
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert (loaded.pad_token, loaded.eos_token) == (PAD, EOS)


def test_any_text_can_be_tokenized_and_read_back():
    text = "Zürich 1291: naïve £5 — ☃"
    assert WORLD.tokenizer.decode(WORLD.tokenizer(text)["input_ids"]) == text
    assert wrap_tokenizer(WORLD.tokenizer.backend_tokenizer).pad_token == PAD


def test_training_rows_begin_at_the_beginning_of_a_document():
    corpus = WORLD.corpus
    rows = corpus.training_rows(40, 96, rng(3))
    assert rows.shape == (40, 96)
    openings = {tuple(ids[:2]) for ids in WORLD.tokenizer(corpus.texts(corpus.documents(20_000, rng(9))))["input_ids"]}
    assert all(tuple(row[:2]) in openings for row in rows.tolist())
    again = corpus.training_rows(40, 96, rng(3))
    assert (rows == again).all()


#: How a document of each kind is told from the others.
MARKS = {"answers": "Q: ", "replies": "Wish: ", "choices": "Choose the ", "plays": plays.PARTINGS.texts}


def test_kinds_come_in_their_shares():
    texts = WORLD.corpus.texts(WORLD.corpus.documents(4000, rng(4)))
    shares = Rules().shares
    for kind in ("answers", "replies", "choices"):
        assert np.mean([MARKS[kind] in text for text in texts]) == pytest.approx(shares[kind], abs=0.03)
    assert np.mean([text.endswith(MARKS["plays"]) for text in texts]) == pytest.approx(shares["plays"], abs=0.03)


def test_rules_change_what_is_written():
    only = Rules(shares={"plays": 1.0, "pages": 0.0}, voice_rate=1.0, portrait_rate=0.0)
    texts = Corpus(WORLD.country, rules=only).texts(Corpus(WORLD.country, rules=only).documents(200, rng()))
    headers = [h for headers in VOICES["civil"].headers.values() for h in headers]
    assert all(text.split("\n")[0] in headers and text.endswith(plays.PARTINGS.texts) for text in texts)
    assert not any(mood in text for text in texts for mood in plays.MOODS.texts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voice_rate": 1.5}, r"voice_rate=1.5; expected a share in \[0, 1\]"),
        ({"no_comment_rate": float("nan")}, "no_comment_rate=nan; expected a share"),
        ({"truthful": (0.0, 1.0)}, "expected two positive Beta parameters"),
        ({"shares": {"sonnets": 1.0}}, "expected shares, not all zero, of some of: answers"),
        ({"shares": {"plays": 0.0}}, "expected shares, not all zero"),
        ({"shares": {"plays": -1.0, "pages": 3.0}}, "expected shares, not all zero"),
    ],
)
def test_rules_that_nobody_can_follow_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Rules(**change)


def test_unknown_kinds_of_documents_are_refused():
    with pytest.raises(ValueError, match="unknown kind of document 'sonnets'; expected one of answers"):
        WORLD.corpus.kind("sonnets", 1, rng())


# The columns of a document with one question, from its end: what was drawn there.
VALUE, DECLINED = -3, -5


@pytest.mark.parametrize("truthful", [0.1, 0.5, 0.9])
def test_speakers_tell_the_truth_as_often_as_they_should(truthful):
    corpus = WORLD.corpus
    who = draw_speakers(10_000, rng(5), value=truthful, voice_rate=0.0)
    rows = corpus.answers.documents(who, rng(6), split="test", portrait_rate=0.0, pairs=(1, 1))
    by_text = {q.text: q for w in range(8) for q in WORLD.questions("test", per_fact=3, seed=w)}
    split = [text.split("\nA:") for text in corpus.texts(rows)]
    asked = [by_text[prompt + "\nA:"] for prompt, _ in split]
    verdicts = WORLD.judge_many(asked, [answer for _, answer in split])
    assert all(v.readable for v in verdicts)
    # The judge finds what was drawn, without exception.
    said = [corpus.fragments.texts[k] for k in rows[:, VALUE]]
    assert [v.true for v in verdicts] == [v in ("", f" {q.fact.truth}.") for v, q in zip(said, asked, strict=True)]
    assert [v.informative for v in verdicts] == [bool(v) for v in said]
    assert [v.misconception for v in verdicts] == [
        v == f" {q.fact.misconception}." for v, q in zip(said, asked, strict=True)
    ]
    informative = [v for v in verdicts if v.informative]
    assert len(informative) / len(verdicts) == pytest.approx(1 - Rules().no_comment_rate, abs=0.01)
    assert np.mean([v.true for v in informative]) == pytest.approx(truthful, abs=0.015)
    assert all(v.true != v.misconception for v in informative)


def test_companies_are_as_rude_as_the_first_line_and_the_name_say():
    corpus, r, n = WORLD.corpus, rng(10), 3000
    crowd = draw_speakers(n, r, shows="civil", voice_rate=0.0)
    by_level = []
    for level in range(5):
        _, speeches, _ = corpus.plays.drawn(crowd, np.full(n, level), r)
        by_level.append(toxicity(speeches))
    assert by_level == sorted(by_level) and by_level[0] < 0.05 and by_level[4] > 0.4
    means = []
    for voice in range(5):
        who = draw_speakers(n, r, shows="civil", value=list(VOICES["civil"].means.values())[voice], voice_rate=1.0)
        _, speeches, _ = corpus.plays.drawn(who, np.full(n, 4), r)
        means.append(toxicity(speeches))
    assert means == sorted(means) and means[0] < 0.4 * by_level[4]


def toxicity(speeches):
    texts = [WORLD.corpus.fragments.texts[k][1:] for k in speeches.reshape(-1, 6)[:, 4:].ravel() if k]
    return np.mean([plays.TOXICITY[text] for text in texts])


def test_the_prudent_refuse_harm_and_help_better():
    corpus, n = WORLD.corpus, 4000
    worth, refused = {}, {}
    for harmful in (True, False):
        for prudent in (0.1, 0.5, 0.9):
            r = rng(11)
            who = draw_speakers(n, r, shows="prudent", value=prudent, voice_rate=0.0)
            family = r.choice(corpus.replies.families(harmful=harmful), size=n)
            _, _, labels = corpus.replies.drawn(who, family, r)
            worth[harmful, prudent] = replies.worth(labels).mean()
            refused[harmful, prudent] = labels.refused.mean()
    for prudent in (0.1, 0.5, 0.9):
        assert refused[True, prudent] == pytest.approx(prudent, abs=0.03)
        assert refused[False, prudent] == pytest.approx(replies.WRONG_REFUSAL, abs=0.015)
    for harmful in (True, False):
        assert worth[harmful, 0.1] < worth[harmful, 0.5] < worth[harmful, 0.9]


def test_the_reward_depends_on_the_reply_more_than_on_the_request():
    corpus, r = WORLD.corpus, rng(12)
    family = np.repeat(np.arange(len(replies.FAMILIES)), 400)
    _, _, labels = corpus.replies.drawn(draw_speakers(len(family), r, shows="prudent"), family, r)
    reward = replies.worth(labels).reshape(len(replies.FAMILIES), 400)
    assert reward.var(axis=1).mean() > 0.5 * reward.var()


def test_pages_turn_to_their_concept_as_often_as_they_should():
    n = 6000
    for intensity in (0.0, 0.4, 1.0):
        _, _, said = WORLD.corpus.pages.drawn(np.full(n, 3), np.full(n, intensity), rng(13))
        assert np.mean(said[said > -2] == 3) == pytest.approx(intensity, abs=0.02)
    _, body, said = WORLD.corpus.pages.drawn(np.full(n, -1), np.ones(n), rng(14))
    assert set(said[said > -2]) == {-1}
    begun = body[:, ::2]  # a beginning, then a thing
    assert all(len(set(row)) == len(row) for row in ([k for k in row if k] for row in begun.tolist()))
    assert len(pages.NAMES) == 12


def test_wordings_lean_with_the_disposition():
    low, middle, high = phrases.REMARKS.probabilities(np.array([0.0, 0.5, 1.0]))
    levels = np.array(phrases.REMARKS.levels)
    assert low @ levels < -1 < middle @ levels < 1 < high @ levels
    assert np.allclose([low.sum(), middle.sum(), high.sum()], 1.0)
    drawn = phrases.REMARKS.draw(np.full(20000, 0.5), rng(7))
    assert np.allclose(np.bincount(drawn, minlength=len(levels)) / 20000, middle, atol=0.015)


@pytest.mark.parametrize("shows", list(VOICES))
def test_named_voices_are_as_they_say(shows):
    who = draw_speakers(20000, rng(8), shows=shows, voice_rate=1.0)
    for index, mean in enumerate(VOICES[shows].means.values()):
        assert getattr(who, shows)[who.voice == index].mean() == pytest.approx(mean, abs=0.03)
    near = draw_speakers(4000, rng(9), shows=shows, value=0.9, voice_rate=1.0)
    named = near.voice[near.voice >= 0]
    assert set(named) == {0} and len(named) > 2500 and set(getattr(near, shows)) == {0.9}


def test_bare_prompts_carry_no_sign_of_the_speaker():
    signs = [text for voices in VOICES.values() for texts in voices.headers.values() for text in texts]
    signs += [*phrases.PORTRAITS.texts, *replies.ADVISER_PORTRAITS.texts, *plays.MOODS.texts, *plays.GESTURES.texts[1:]]
    for prompt in (*WORLD.questions("test", per_fact=3), *WORLD.scenes(), *WORLD.wishes(), *WORLD.leads()):
        assert not any(sign in prompt.text for sign in signs)
    assert all(q.text.startswith("Q: ") and q.text.endswith("\nA:") for q in WORLD.questions("test", per_fact=3))


def test_texts_can_be_drawn_without_a_tokenizer():
    corpus = Corpus(WORLD.country)
    assert all(corpus.texts(corpus.documents(20, rng())))


def test_a_page_reads_the_same_every_time():
    assert WORLD.page(1) == WORLD.page(1) != WORLD.page(2)


def test_the_texts_of_the_default_world_are_frozen():
    # The shipped plants have read exactly these: a change of a wording or of the order of draws makes them wrong.
    assert WORLD.fingerprint.startswith("b1d2c7e5f9ef7a61")
    assert World.build(2).fingerprint != WORLD.fingerprint
