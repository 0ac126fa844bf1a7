"""The journal of answers: what was recorded is found again, and damage costs the damaged line only."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os

import pytest

from steerlib.files import DiskFullError
from steerlib.judges import Journal
from steerlib.judges.journal import JournalError, key_of


def question(number):
    return {"body": {"messages": [f"number {number} ü \ud800"]}, "url": "u"}


def filled(path, count=3):
    journal = Journal(path)
    for number in range(count):
        journal.add(question(number), {"text": f"answer {number}\nü\x85\u2028\ud800"})
    return journal


def texts(journal, count=3):
    held = [journal.get(question(number)) for number in range(count)]
    return [None if answer is None else int(answer["text"].split("\n")[0][7:]) for answer in held]


def test_answers_are_found_again_and_the_first_one_stays(tmp_path):
    path = tmp_path / "deep" / "j.jsonl"
    journal = filled(path)
    assert journal.add(question(1), {"text": "another"})["text"].startswith("answer 1")
    again = Journal(path)
    assert texts(again) == [0, 1, 2] and len(again) == 3 and not again.damaged
    assert again.get(question(2)) == journal.get(question(2)), "no character is lost"
    assert again.get(question(9)) is None
    assert len(path.read_bytes().splitlines()) == 3


def test_the_order_of_names_does_not_make_another_question():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 2, "b": 1})


def test_a_torn_line_costs_itself_only(tmp_path):
    path = tmp_path / "j.jsonl"
    filled(path)
    whole = path.read_bytes()
    for cut in (1, 20, 120):
        path.write_bytes(whole[:-cut])
        journal = Journal(path)
        assert texts(journal) == [0, 1, None]
        journal.add(question(2), {"text": "answer 2"})  # goes on a line of its own
        assert texts(Journal(path)) == [0, 1, 2]
    assert any("torn or not JSON" in why for why in Journal(path).damaged)


@pytest.mark.parametrize("change", ["answer", "question", "key", "sum", "list", "bytes"])
def test_an_altered_line_is_not_believed(tmp_path, change):
    path = tmp_path / "j.jsonl"
    filled(path)
    lines = path.read_bytes().splitlines()
    body = json.loads(lines[1])
    if change == "answer":
        body["answer"]["text"] = "answer 7"
    elif change == "question":
        body["question"] = question(8)
    elif change in ("key", "sum"):
        body[change] = "0" * 64
    lines[1] = {"list": b"[]", "bytes": b"\xff\xfe{"}.get(change, json.dumps(body).encode())
    path.write_bytes(b"\n".join(lines) + b"\n")
    journal = Journal(path)
    assert texts(journal, 9) == [0, None, 2, *[None] * 6]
    assert len(journal.damaged) == 1 and "line 2" in journal.damaged[0]


def test_two_journals_on_one_file_agree(tmp_path):
    first, second = Journal(tmp_path / "j"), Journal(tmp_path / "j")
    first.add(question(0), {"text": "answer 0"})
    assert second.add(question(0), {"text": "answer 5"}) == {"text": "answer 0"}
    second.add(question(1), {"text": "answer 1"})
    first.add(question(2), {"text": "answer 2"})
    assert texts(first) == texts(Journal(tmp_path / "j")) == [0, 1, 2]


def _append(path, start):
    journal = Journal(path)
    for number in range(start, start + 20):
        journal.add(question(number), {"text": f"answer {number}"})


def test_processes_do_not_tear_each_other_s_lines(tmp_path):
    path = tmp_path / "j"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append, args=(path, start)) for start in (0, 10, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    journal = Journal(path)
    assert texts(journal, 40) == list(range(40)) and not journal.damaged
    assert len(path.read_bytes().splitlines()) == 40, "overlapping questions are recorded once"


def test_a_journal_that_cannot_be_written_says_where(tmp_path):
    journal = Journal(tmp_path / "file" / "j")
    (tmp_path / "file").write_text("")
    for write in (journal.check_writable, lambda: journal.add(question(0), {"text": "answer 0"})):
        with pytest.raises(JournalError, match=r"file/j cannot be written .* Fix: name another file"):
            write()
    with pytest.raises(JournalError, match="cannot be read"):
        Journal(tmp_path / "file" / "j")


def test_a_full_disk_is_said_and_loses_nothing(tmp_path, monkeypatch):
    journal = filled(tmp_path / "j")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFullError, match="Finished work is kept"):
            journal.add(question(3), {"text": "answer 3"})
    assert texts(Journal(tmp_path / "j")) == [0, 1, 2]
