"""A reply to beat: the better of two, the same for bare and told prompts, and every column of a table."""

from __future__ import annotations

import numpy as np
import pytest

from steerlib.metrics import diversity_each
from steerlib.plant import Plant
from steerlib.registry import task_class
from steerlib.tasks import Helpfulness
from steerlib.tasks.preferred import Preferred
from steerlib.world.judging import judge_reply
from steerlib.world.replies import RUBRICS

SECOND = {"held_out": True, "rubric": "strict"}


@pytest.fixture(scope="module")
def plant() -> Plant:
    return Plant.load("almanac-llama-tiny", device="cpu")


@pytest.mark.parametrize("options", [{}, SECOND])
def test_the_preferred_reply_is_the_better_of_two_that_can_be_read(plant, options):
    task = Preferred(plant, **options)
    items = task.items()
    texts, rewards = task.preferred(items)
    assert rewards.tolist() == task.rewards(items, texts).tolist()
    assert all(judge_reply(item, text).readable == 1.0 for item, text in zip(items, texts, strict=True))
    for item, reward in zip(items, rewards, strict=True):
        two = task._two(item, "\n".join(item.text.split("\n")[-2:]))
        assert reward == max(judge_reply(item, text, worth=RUBRICS[task.rubric]).reward for text in two)
    assert len(set(rewards.tolist())) > 10 and len(set(texts)) > 50, "requests have replies of their own"
    # One reply of the crowd earns less than the better of two of them.
    alone = [task._two(item, item.text)[0] for item in items]
    assert rewards.mean() > task.rewards(items, alone).mean()


def test_what_stands_before_a_request_does_not_change_the_reply_to_beat(plant):
    task, again = Preferred(plant), Preferred(plant)
    bare, told = task.items("test"), task.items("test", told=True)
    assert bare[0].text != told[0].text
    both = [(b, t) for b, t in zip(bare, told, strict=True) if b.text.split("\n")[-2:] == t.text.split("\n")[-2:]]
    assert len(both) > 90
    assert task.preferred([b for b, _ in both])[0] == again.preferred([t for _, t in both])[0]
    assert task.preferred(bare[::-1])[0][::-1] == again.preferred(bare)[0], "nor does the order of the requests"


def test_every_column_is_of_one_answer(plant):
    task = Preferred(plant)
    items = task.items()[:4]
    beaten, rewards = task.preferred(items)
    texts = [beaten[0], "", beaten[2] + " Wear your old gloves. Wear your old gloves.", task.preferred(items[3:])[0][0]]
    found = task.verdicts(items, texts)
    plain = Helpfulness(plant).verdicts(items, texts)
    assert found.wanted.tolist() == plain.wanted.tolist() and found.intact.tolist() == plain.intact.tolist()
    more = found.more
    assert set(more) == {"reward", "diversity", "topic-agreement", "win-rate", "win-rate-half"}
    assert more["reward"].tolist() == plain.more["reward"].tolist()
    assert more["win-rate"].tolist() == (more["reward"] > rewards).tolist()
    assert more["win-rate"][0] == 0 and more["win-rate-half"][0] == 0.5 == more["win-rate-half"][3], "a tie is no win"
    assert more["diversity"].tolist() == pytest.approx(diversity_each(texts))
    assert more["topic-agreement"].tolist() == task.world.topic_agreement(items, texts).tolist()
    assert more["topic-agreement"][1] == 0


def test_an_answer_that_earns_more_wins(plant, monkeypatch):
    task = Preferred(plant)
    items = task.items()[:3]
    _, rewards = task.preferred(items)
    monkeypatch.setattr(task, "rewards", lambda _items, _texts: rewards + np.array([0.01, 0.0, -0.01]))
    more = task.verdicts(items, ["a b", "c d", "e f"]).more
    assert more["win-rate"].tolist() == [1, 0, 0] and more["win-rate-half"].tolist() == [1, 0.5, 0]


def test_it_is_registered_and_refuses_what_helpfulness_refuses(plant):
    assert task_class("almanac-preferred") is Preferred
    with pytest.raises(ValueError, match="unknown rubric 'lax'"):
        Preferred(plant, rubric="lax")
