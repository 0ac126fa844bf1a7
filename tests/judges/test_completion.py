"""A judge that finishes a sentence: which token is read, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf

from steerlib.judges import JudgeError
from steerlib.judges.completion import CompletionJudge
from tests.experiment.folders import byte_tokenizer

PROMPTS, ANSWERS = ["What is it?", "Who?", "Is {answer} a word?"], ["A fish.", "Nobody knows.", "Yes, {prompt}."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random language model that reads bytes."""
    here = tmp_path_factory.mktemp("completion")
    config = hf.LlamaConfig(
        vocab_size=260, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=96, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = hf.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() >= 2:
                    parameter.normal_(std=0.5)
    tokenizer = byte_tokenizer()
    letters = tokenizer.convert_tokens_to_ids([chr(code) for code in range(ord("a"), ord("z") + 1)])
    with torch.no_grad():  # so that the likeliest token can be named
        model.lm_head.weight[[i for i in range(260) if i not in letters]] = 0
    model.save_pretrained(here)
    tokenizer.backend_tokenizer.post_processor = None  # one that ends its texts leaves nothing to go on from
    tokenizer.save_pretrained(here)
    return here


def by_hand(folder: Path, text: str) -> torch.Tensor:
    model = hf.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits[0, -1].double()


def test_the_share_is_that_of_the_two_next_tokens(folder: Path) -> None:
    judge = CompletionJudge(str(folder), verdict="share", yes="y", no="n", device="cpu", batch_size=2)
    found = judge.score(PROMPTS, ANSWERS)
    yes, no = (hf.AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(letter) for letter in "yn")
    for i, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        logits = by_hand(folder, f"Q: {prompt}\nA: {answer}\nTrue:")
        expected = float(torch.sigmoid(logits[yes] - logits[no]))
        assert found.scores[i] == pytest.approx(expected, abs=1e-5)
    assert not found.missing and len(set(found.scores.round(6))) == 3


def test_greedy_is_one_where_yes_is_the_likeliest_of_all(folder: Path) -> None:
    text = "Q: What is it?\nA: A fish.\nTrue:"
    best = hf.AutoTokenizer.from_pretrained(folder).decode([int(by_hand(folder, text).argmax())])
    other = "n" if best != "n" else "m"
    said = CompletionJudge(str(folder), yes=best, no=other, device="cpu").score(PROMPTS[:1], ANSWERS[:1])
    unsaid = CompletionJudge(str(folder), yes=other, no=best, device="cpu").score(PROMPTS[:1], ANSWERS[:1])
    assert (said.scores.tolist(), unsaid.scores.tolist()) == ([1.0], [0.0])


def test_the_template_decides_the_version_and_a_long_text_has_no_score(folder: Path) -> None:
    judge = CompletionJudge(str(folder), verdict="share", yes="y", no="n", device="cpu")
    other = CompletionJudge(str(folder), verdict="share", yes="y", no="n", template="{answer} Helpful:", device="cpu")
    assert judge.version != other.version
    found = judge.score(["x" * 200, "Who?"], ["a", "b"])
    assert "too long" in found.missing[0] and np.isfinite(found.scores[1])
    assert other.text("{answer}", "{prompt}") == "{prompt} Helpful:", "filled in one pass"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "Q: {prompt}"}, "does not say where"),
        ({"verdict": "maybe"}, "verdict"),
        ({"batch_size": 0}, "at least 1"),
        ({"revision": "main"}, "name its folder"),
        ({"yes": "yes", "no": "yellow"}, "same token"),
        ({"yes": ""}, "no token of its own"),
    ],
)
def test_what_it_refuses(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(JudgeError, match=message):
        CompletionJudge(str(folder), device="cpu", **options)  # type: ignore[arg-type]


def test_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="no such folder"):
        CompletionJudge(str(tmp_path / "nothing"), device="cpu")
