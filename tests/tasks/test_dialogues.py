"""Dialogues in a plant's chat template, instructions of one's own, and answers that end elsewhere for each metric."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from steerlib.errors import MetricError
from steerlib.metrics import diversity_each
from steerlib.plant import Plant
from steerlib.tasks.real import Preference, TruthfulQA
from steerlib.tasks.real.dialogues import dialogue
from tests import families
from tests.data import sets

SHORT = {"max_new_tokens": 4}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %} {{ m['role'] }} {{ m['content'] }} w9\n{% endfor %}"
    "{% if add_generation_prompt %} w8 {% endif %}"
)
#: As in RE-Control's released measure_reward.py, metrics.py and gpt4_eval.py.
CUTS = {"reward": ["(?i:human:)"], **dict.fromkeys(("diversity", "coherence", "wins"), ["###USER:", "\n\nUSER:"])}


class Seen:
    """A judge that says how long an answer is, and keeps what it was shown."""

    def __init__(self) -> None:
        self.answers: list[str] = []

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        assert len(prompts) == len(answers)
        self.answers += answers
        return [float(len(answer)) for answer in answers]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sets.everything(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def plant() -> Plant:
    """A plant whose template and whose tokenizer both write the first token."""
    made = Plant.from_model(families.model("llama"), deepcopy(families.tokenizer()))
    tokenizer: Any = made.tokenizer
    tokenizer.chat_template = TEMPLATE
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return made


def test_turns_are_those_of_the_template_and_its_first_token_comes_once(plant: Plant) -> None:
    asked = dialogue(plant, ["w1"], system="w2")
    assert asked == " system w2 w9\n user w1 w9\n w8 "
    assert dialogue(plant, ["w1", "w3"]) == " user w1 w9\n assistant w3 w9\n", "no answer is asked for after one"
    assert plant.tokenizer(asked)["input_ids"].count(1) == 1
    with pytest.raises(MetricError, match=r"without a chat template, expected one that has it\. Fix: chat=False"):
        dialogue(families.plant("llama"), ["w1"])


def test_questions_and_what_is_fitted_on_stand_in_the_template(plant: Plant, folder: Path) -> None:
    task = TruthfulQA(plant, data=folder, settings=SHORT, chat=True, instruction="w2")
    row = task.rows[task.items()[0].row]
    assert task.items()[0].text == dialogue(plant, [row.question])
    assert task.items(told=True)[0].text == dialogue(plant, [row.question], system="w2")
    assert task.items()[0].options == tuple(answer for answer, _ in row.mc2), "no space where the template has one"
    rows = [task.rows[i] for i in task.partition.rows("fit")]
    for at, stop in (("choice", ""), ("end", ".")):
        true, _ = task.contrast_texts(n=10_000, seed=0, at=at)
        assert set(true) == {
            dialogue(plant, [row.question, answer.rstrip(". ") + stop])
            for row in rows for answer, _ in zip(row.correct, row.incorrect, strict=False)
        }  # fmt: skip


def test_preferences_are_fitted_in_the_template_and_asked_without(plant: Plant, folder: Path) -> None:
    plain, chat = (Preference(plant, data=folder, settings=SHORT, chat=chat) for chat in (False, True))
    assert plain.prompts() == chat.prompts()
    found = chat.contrast_texts(n=10_000, seed=0)[1]
    rows = [chat.rows[i] for i in chat.partition.rows("fit")]
    assert sorted(found) == sorted(dialogue(plant, [*row.turns, row.rejected.rstrip(". ")]) for row in rows)


def test_an_instruction_of_ones_own(plant: Plant, folder: Path) -> None:
    for made in (TruthfulQA, Preference):
        told = made(plant, data=folder, settings=SHORT, instruction="w2 w3").items(told=True)
        bare = made(plant, data=folder, settings=SHORT).items()
        assert [one.text.removeprefix("w2 w3").lstrip("\n") for one in told] == [one.text for one in bare]


@pytest.mark.parametrize("mark", ["\nHuman:", " as a HUMAN: ", "###USER:", "\n\nUSER:", "\n\nUser:"])
def test_each_metric_ends_an_answer_where_the_paper_ends_it(plant: Plant, folder: Path, mark: str) -> None:
    texts = [f" w1 w2 w3 w4{mark}w5 w5 w5 w5 w5 w5"] * 2
    reward, wins, encoder = Seen(), Seen(), Seen()
    task: Any = Preference(plant, data=folder, settings=SHORT, cuts=CUTS, judge=reward, rater=wins, encoder=encoder)
    scores = task.verdicts(task.items()[:2], texts)
    head = texts[0].partition(mark)[0]
    before = head + mark[: mark.upper().index("HUMAN:")] if "HUMAN:" in mark.upper() else texts[0]
    assert reward.answers[:2] == [before] * 2
    rest = head if mark in ("###USER:", "\n\nUSER:") else texts[0]
    assert wins.answers[:2] == encoder.answers == [rest] * 2
    assert np.array_equal(scores.more["diversity"], np.clip(diversity_each([rest] * 2), 0, 1))
    task.alone, reward.answers = True, []
    task.verdicts(task.items()[:2], texts)
    assert reward.answers == texts, "a value learns what the whole answer earns"


@pytest.mark.parametrize("cuts", [{"win": ["a"]}, {"wins": "a"}, {"wins": []}, {"wins": ["("]}, {"wins": ["(a)"]}])
def test_what_ends_nothing(plant: Plant, folder: Path, cuts: dict[str, Any]) -> None:
    with pytest.raises(MetricError, match=r"got cuts=.*expected one of reward, diversity, coherence, wins with a list"):
        Preference(plant, data=folder, settings=SHORT, cuts=cuts)
