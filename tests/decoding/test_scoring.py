"""Scorers of texts, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from steerlib.decoding import (
    BestOf,
    Blockwise,
    ControlledDecoding,
    DecodingError,
    ModelScorer,
    StateScorer,
    TextScorer,
    TokenScorer,
    judge_rewards,
    one_tokenizer,
)  # fmt: skip
from steerlib.judges.base import BaseJudge, Opinion
from tests.decoding.toys import PROMPTS, reader, toy, word_rewards
from tests.families import VOCABULARY, tokenizer, words

HOW = {"max_new_tokens": 3, "seed": 0}


def reversed_tokenizer() -> PreTrainedTokenizerFast:
    """The same words, other ids."""
    known = {"<pad>": 0, "<bos>": 1, "<eos>": 2, **{f"w{i}": VOCABULARY + 2 - i for i in range(3, VOCABULARY)}}
    core = Tokenizer(models.WordLevel(known, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


def test_a_model_with_another_tokenizer_reads_texts_anew() -> None:
    p, model, other = toy(), reader(), reversed_tokenizer()

    def by_hand(prompts, answers):
        found = []
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = torch.tensor([other(prompt + answer)["input_ids"]])
            found.append(float(model(input_ids=ids).logits[0, 0]))
        return found

    out = ControlledDecoding(ModelScorer(model, other, batch_size=5), k=4, weight=3.0).generate(p, PROMPTS, **HOW)
    expected = ControlledDecoding(TextScorer(by_hand), k=4, weight=3.0).generate(p, PROMPTS, **HOW)
    assert out.tokens == expected.tokens
    assert out.rewards == pytest.approx(expected.rewards, abs=1e-4)
    assert out.cost.reward_positions > out.cost.rewards == expected.cost.rewards
    # The same model reading ids of the plant's own tokenizer is another reward.
    ids = ControlledDecoding(TokenScorer(model, tokenizer()), k=4, weight=3.0).generate(p, PROMPTS, **HOW)
    assert ids.tokens != out.tokens


def test_ids_of_another_tokenizer_are_refused() -> None:
    with pytest.raises(DecodingError, match=r"'w\d+' is \d+ in one and \d+ in the other.*Fix: ModelScorer"):
        ControlledDecoding(TokenScorer(reader(), reversed_tokenizer())).generate(toy(), PROMPTS, **HOW)
    one_tokenizer(tokenizer(), tokenizer())


def test_prompt_and_answer_may_be_read_as_a_pair() -> None:
    scorer = ModelScorer(reader(), tokenizer(), reads="pair")
    joined = ModelScorer(reader(), tokenizer())
    # This tokenizer sets nothing between the two, so that both must agree.
    prompts, answers = [words(5, 6), words(7)], [" " + words(8), " " + words(9, 10)]
    torch.testing.assert_close(
        torch.as_tensor(scorer.reward(prompts, answers)), torch.as_tensor(joined.reward(prompts, answers))
    )


class _Judge(BaseJudge):
    name, version = "counts words", "1"

    def opinions(self, prompts, answers):
        return [Opinion(None, "too long") if len(a.split()) > 3 else Opinion(float(len(a.split()))) for a in answers]


def test_a_judge_rewards_and_blanks_are_worth_what_is_said() -> None:
    rewards = judge_rewards(_Judge(), blank=-2.0)
    np.testing.assert_array_equal(rewards(["a", "a"], ["w3 w4", " "]), [2.0, -2.0])
    with pytest.raises(DecodingError, match="counts words: gave no score for 'w3 w4 w5 w6' .too long"):
        rewards(["a"], ["w3 w4 w5 w6"])


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda _, a: [float("nan")] * len(a), "reward: got nan for '.*', as an answer to 'w.*also an empty one"),
        (lambda *_: [0.0], r"reward: got shape \(1,\) for 40 answers"),
        (lambda _, a: np.full(len(a), np.inf), "reward: got inf"),
    ],
)
def test_rewards_that_are_none_are_refused(reward, message: str) -> None:
    with pytest.raises(DecodingError, match=message):
        ControlledDecoding(TextScorer(reward)).generate(toy(), PROMPTS, **HOW)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda z: z[..., :1], r"value: got shape \(4, 10, 1\) for states \(4, 10, 32\)"),
        (lambda z: z.sum(-1) * torch.nan, "scorer: got nan for candidate 0 of prompt 0"),
    ],
)
def test_values_that_are_none_are_refused(value, message: str) -> None:
    with pytest.raises(DecodingError, match=message):
        ControlledDecoding(StateScorer(value)).generate(toy(), PROMPTS, **HOW)


def test_what_cannot_be_meant_is_refused() -> None:
    texts = TextScorer(word_rewards)
    small = BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, num_labels=1
    )
    no_pad = PreTrainedTokenizerFast(tokenizer_object=tokenizer().backend_tokenizer)
    wrong = [
        (lambda: TextScorer(3), "reward: got int, expected a function"),  # type: ignore[arg-type]
        (lambda: StateScorer(3), "value: got int, expected a function"),  # type: ignore[arg-type]
        (lambda: ControlledDecoding(word_rewards), "scorer: got function, expected a Scorer"),  # type: ignore[arg-type]
        (lambda: ControlledDecoding(texts, k=0), "k: got 0"),
        (lambda: ControlledDecoding(texts, weight=float("nan")), "weight: got nan"),
        (lambda: ControlledDecoding(texts, temperature=-1.0), "temperature: got -1.0"),
        (lambda: ControlledDecoding(texts, base="logits"), "Did you mean logit"),  # type: ignore[arg-type]
        (lambda: Blockwise(texts, k=0), "k: got 0"),
        (lambda: Blockwise(texts, block=0), "block: got 0"),
        (lambda: Blockwise(texts, k=2).generate(toy(), PROMPTS, temperature=0, **HOW), "all blocks are the same"),
        (lambda: BestOf(word_rewards, n=0), "n: got 0"),
        (lambda: BestOf(word_rewards, n=2).generate(toy(), PROMPTS, temperature=0, **HOW), "all samples are the same"),
        (lambda: ModelScorer(reader(labels=2), tokenizer()), "has 2 outputs, expected one reward"),
        (lambda: TokenScorer(reader(labels=2), tokenizer()), "has 2 outputs, expected one reward"),
        (lambda: TokenScorer(BertForSequenceClassification(small), tokenizer()), "no `score` head .*Fix: ModelScorer"),
        (
            lambda: ModelScorer(reader(), tokenizer()).reward(["w5 " * 60], ["w5 " * 9]),
            "got up to 69 tokens .* at most 64",
        ),
        (
            lambda: ControlledDecoding(TokenScorer(reader(), tokenizer())).generate(
                toy(), ["w5 " * 50], max_new_tokens=15, seed=0
            ),
            "got up to 65 tokens",
        ),
        (lambda: ModelScorer(reader(), no_pad), "no padding token"),
        (lambda: ModelScorer(reader(), tokenizer(), reads="chat"), "reads: got 'chat'"),  # type: ignore[arg-type]
    ]
    for make, message in wrong:
        with pytest.raises(DecodingError, match=message):
            make()
