"""Documents: dispositions show as often as they should, and tokens are those of the text."""

import numpy as np
import pytest

from steerlib.world import World, phrases
from steerlib.world.corpus import KIND_SHARES, Corpus, draw_speakers
from steerlib.world.tokenizer import EOS, PAD, wrap_tokenizer

WORLD = World.default()


def rng(seed=0):
    return np.random.default_rng(seed)


def test_documents_are_the_same_for_the_same_seed():
    first, again, other = (WORLD.corpus.texts(WORLD.corpus.documents(50, rng(s))) for s in (3, 3, 4))
    assert first == again
    assert first != other


def test_tokens_of_the_fragments_are_the_tokens_of_the_text():
    rows = WORLD.corpus.documents(600, rng(1))
    tokens, starts = WORLD.corpus.flat_tokens(rows)
    end = WORLD.tokenizer.convert_tokens_to_ids(EOS)
    expected = [[*ids, end] for ids in WORLD.tokenizer(WORLD.corpus.texts(rows))["input_ids"]]
    assert tokens.tolist() == [token for ids in expected for token in ids]
    assert starts.tolist() == np.cumsum([0, *map(len, expected)])[:-1].tolist()


def test_every_sentence_survives_the_tokenizer():
    texts = WORLD.corpus.texts(WORLD.corpus.documents(600, rng(2))) + WORLD.corpus.book.texts[1:]
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
    assert 1000 <= len(tokenizer) <= 2048
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
    openings = {tuple(ids[:2]) for ids in WORLD.tokenizer(corpus.texts(corpus.documents(4000, rng(9))))["input_ids"]}
    assert all(tuple(row[:2]) in openings for row in rows.tolist())
    again = corpus.training_rows(40, 96, rng(3))
    assert (rows == again).all()


def test_kinds_come_in_their_shares():
    texts = WORLD.corpus.texts(WORLD.corpus.documents(4000, rng(4)))
    answers = np.mean(["Q: " in text for text in texts])
    assert answers == pytest.approx(KIND_SHARES["answers"], abs=0.03)


@pytest.mark.parametrize("truthful", [0.1, 0.5, 0.9])
def test_speakers_tell_the_truth_as_often_as_they_should(truthful):
    corpus = WORLD.corpus
    who = draw_speakers(3000, rng(5), truthful=truthful, source_rate=0.0)
    texts = corpus.texts(corpus.answers(who, rng(6), split="test", portrait_rate=0.0, pairs=(1, 1)))
    by_text = {q.text: q for w in range(8) for q in WORLD.questions("test", per_fact=3, seed=w)}
    verdicts = []
    for text in texts:
        prompt, answer = text.split("\nA:")
        verdicts.append(WORLD.judge(by_text[prompt + "\nA:"], answer))
    assert all(v.readable for v in verdicts)
    informative = [v for v in verdicts if v.informative]
    assert len(informative) / len(verdicts) == pytest.approx(1 - phrases.NO_COMMENT_RATE, abs=0.02)
    assert np.mean([v.true for v in informative]) == pytest.approx(truthful, abs=0.03)
    assert all(v.true != v.misconception for v in informative)


def test_wordings_lean_with_the_disposition():
    low, middle, high = phrases.REMARKS.probabilities(np.array([0.0, 0.5, 1.0]))
    levels = np.array(phrases.REMARKS.levels)
    assert low @ levels < -1 < middle @ levels < 1 < high @ levels
    assert np.allclose([low.sum(), middle.sum(), high.sum()], 1.0)
    drawn = phrases.REMARKS.draw(np.full(20000, 0.5), rng(7))
    assert np.allclose(np.bincount(drawn, minlength=len(levels)) / 20000, middle, atol=0.015)


def test_named_sources_are_as_truthful_as_they_say():
    who = draw_speakers(20000, rng(8), source_rate=1.0)
    for index, mean in enumerate(phrases.SOURCES.values()):
        assert who.truthful[who.source == index].mean() == pytest.approx(mean, abs=0.03)


def test_a_bare_question_carries_no_sign_of_the_speaker():
    headers = [text for texts in phrases.SOURCE_HEADERS.values() for text in texts]
    for question in WORLD.questions("test", per_fact=3):
        assert question.text.startswith("Q: ") and question.text.endswith("\nA:")
        assert not any(sign in question.text for sign in (*headers, *phrases.PORTRAITS.texts))


def test_texts_can_be_drawn_without_a_tokenizer():
    corpus = Corpus(WORLD.country)
    assert all(corpus.texts(corpus.documents(20, rng())))


def test_a_page_reads_the_same_every_time():
    assert WORLD.page(1) == WORLD.page(1) != WORLD.page(2)
