"""Coherence by an encoder: the cosine of embeddings, whatever the batch, and folders that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as hf

from steerlib.experiment.judge_spec import JudgeSpec
from steerlib.experiment.keys import judge_identity
from steerlib.judges import JudgeError
from steerlib.judges.encoder import EncoderJudge
from tests.experiment import folders

PROMPTS = ["Human: who are you?\nAssistant:", "Human: a cat\nAssistant:", "Human: x\nAssistant:"]
ANSWERS = [" a friend of yours", " Human: a cat", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folders.encoder(tmp_path_factory.mktemp("encoder"))


def by_hand(folder: str, text: str) -> torch.Tensor:
    model, made = hf.AutoModel.from_pretrained(folder).eval(), hf.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return model(**made(text, return_tensors="pt")).last_hidden_state[0, 0]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_it_is_the_cosine_of_the_first_states(folder: str, batch_size: int) -> None:
    judge = EncoderJudge(folder, batch_size=batch_size, device="cpu")
    found = judge.score(PROMPTS, ANSWERS)
    for i in range(2):
        cosine = torch.cosine_similarity(by_hand(folder, PROMPTS[i]), by_hand(folder, ANSWERS[i]), dim=0)
        assert found.scores[i] == pytest.approx(float(cosine), abs=1e-5)
    assert dict(found.missing) == {2: "empty answer"}
    assert judge.score(["a b c"], ["a b c"]).scores[0] == pytest.approx(1.0)


def test_what_decides_its_scores_decides_its_version_and_key(folder: str, tmp_path: Path) -> None:
    versions = {
        EncoderJudge(folder, device="cpu", **options).version  # type: ignore[arg-type]
        for options in ({}, {"pooling": "mean"}, {"max_tokens": 16})
    }
    other = folders.encoder(tmp_path / "other", seed=7)
    assert len(versions | {EncoderJudge(other, device="cpu").version}) == 4
    assert EncoderJudge(folder, batch_size=3, device="cpu").version in versions
    one, two = (JudgeSpec(kind="encoder", model=place) for place in (folder, other))
    assert judge_identity(one) != judge_identity(two)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("./absent", {}, "no such folder"),
        (None, {"revision": "main"}, "expected none for a folder"),
        (None, {"max_tokens": 0}, "got max_tokens=0"),
        (None, {"pooling": "last"}, "pooling='last', expected 'first' or 'mean'"),
    ],
)
def test_what_cannot_embed_is_refused(folder: str, name: str | None, options: dict, message: str) -> None:
    with pytest.raises(JudgeError, match=message):
        EncoderJudge(name or folder, device="cpu", **options)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="cannot be loaded.*safetensors"):
        EncoderJudge(str(tmp_path), device="cpu")
