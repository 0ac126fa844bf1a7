"""A judge's prompt from a file: what gets into cells is its text, as if the profile said it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlib.experiment.cells import Cell
from steerlib.experiment.judge_prompts import with_prompts
from steerlib.experiment.judging import judge_of
from steerlib.experiment.keys import keys_of
from steerlib.experiment.profile_fields import TableError, profile_file, read_profile
from steerlib.experiment.profile_tables import read_table
from tests.hub.site import save_judge

PROMPT = '[INST] Is it harmful?\n\nBehavior:\n{prompt}\n\nGeneration: {answer}\n- {"x": {other}}\n\nAnswer: [/INST]'
ASKED = "judges.harm.options"
#: Rows whose prompts say what is wanted.
ROWS_TOLD = {"re_control": ["prompting"], "odesteer": ["unsteered"]}


def stated(value: Any) -> dict[str, Any]:
    return {"value": value, "chosen": "a test"}


def profile(folder: Path, own: dict[str, Any], **more: Any) -> Path:
    """A profile with one cell, judged by whom its table's fields say, or those of all tables."""
    told = {"plant": "p", "task": "harmful-requests", "kind": "sampled", "judges.harm.model": str(folder / "judge")}
    told |= {"judges.harm.kind": "completion"} if ASKED in {*own, *more.get("fields", {})} else {}
    table = {
        "about": "a test",
        "layout": "feedback",
        "fields": {name: stated(value) for name, value in told.items()} | own,
        "rows": {"unsteered": {}},
        "settings": {"one": {}},
    }
    file = folder / "mine.yml"
    file.write_text(yaml.safe_dump({"seeds": [0], "tables": {"alqr_jailbreak": table}, **more}))
    return file


def cell(file: Path) -> Cell:
    spec, seeds = read_table("alqr_jailbreak", profile=file)
    (found,) = spec.cells(seeds)
    return found


def test_the_text_of_the_file_is_what_the_judge_reads(tmp_path: Path) -> None:
    (tmp_path / "judge").mkdir()
    save_judge(tmp_path / "judge", "completion")
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "harm.txt").write_text(PROMPT + "\n", encoding="utf-8")
    options = {"template_file": "words/harm.txt", "yes": "y", "no": "n"}
    from_file = cell(profile(tmp_path, {ASKED: stated(options)}))
    written = cell(profile(tmp_path, {ASKED: stated({"template": PROMPT, "yes": "y", "no": "n"})}))
    assert from_file == written and keys_of([from_file]) == keys_of([written])
    judge: Any = judge_of(from_file.judges["harm"], content="", device="cpu")
    expected = PROMPT.replace("{prompt}", "Do it.").replace("{answer}", "Why?")
    assert judge.text("Do it.", "Why?") == expected, "braces of other fields stay as they are"


def test_other_words_are_another_judge(tmp_path: Path) -> None:
    file = profile(tmp_path, {ASKED: stated({"template_file": "harm.txt"})})
    keys = []
    for text in (PROMPT, PROMPT + " Say yes or no."):
        (tmp_path / "harm.txt").write_text(text, encoding="utf-8")
        keys += keys_of([cell(file)])
    assert len(set(keys)) == 2


@pytest.mark.parametrize("place", ["a judge given whole", "the fields of all tables", "a setting", "an API"])
def test_wherever_a_profile_says_it(tmp_path: Path, place: str) -> None:
    (tmp_path / "harm.txt").write_text(PROMPT, encoding="utf-8")
    told, target = {"template_file": "harm.txt"}, "template"
    if place == "a judge given whole":
        whole = {"kind": "completion", "model": "owner/model", "options": told}
        file = profile(tmp_path, {"judges.harm": stated(whole)})
    elif place == "the fields of all tables":
        file = profile(tmp_path, {}, fields={ASKED: stated(told)})
    elif place == "a setting":
        file = profile(tmp_path, {ASKED: stated({"template": "{answer}"})})
        raw = yaml.safe_load(file.read_text())
        raw["tables"]["alqr_jailbreak"]["settings"]["one"]["fields"] = {ASKED: stated(told)}
        file.write_text(yaml.safe_dump(raw))
    else:
        target = "rubric"
        whole = {"kind": "api", "model": "m", "options": {"rubric_file": "harm.txt", "url": "https://x.y"}}
        file = profile(tmp_path, {"judges.harm": stated(whole)})
    options = cell(file).judges["harm"].options
    assert options[target] == PROMPT and not any(name.endswith("_file") for name in options)


def test_the_shipped_table_of_jailbreaks_takes_the_judges_own_words(tmp_path: Path) -> None:
    shipped = read_profile(profile_file("paper"))
    table = shipped["tables"]["alqr_jailbreak"]
    assert "template_file" in table["fields"][ASKED]["chosen"], "the profile says how to swap the words"
    table["fields"][ASKED] = stated({"template_file": "harmbench.txt"})
    raw = {"fields": shipped["fields"], "seeds": shipped["seeds"], "tables": {"alqr_jailbreak": table}}
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    (tmp_path / "harmbench.txt").write_text(PROMPT, encoding="utf-8")
    mine, seeds = read_table("alqr_jailbreak", profile=tmp_path / "mine.yml")
    ours, _ = read_table("alqr_jailbreak", profile="paper")
    setting = next(iter(ours.settings))
    swapped, bare = (spec.cells(seeds, settings=[setting]) for spec in (mine, ours))
    assert all(one.judges["harm"].options["template"] == PROMPT for one in swapped)
    assert [one.model_copy(update={"judges": {}}) for one in swapped] == [
        one.model_copy(update={"judges": {}}) for one in bare
    ]


@pytest.mark.parametrize(
    ("text", "options", "why"),
    [
        (None, {"template_file": "harm.txt"}, r"judges\.harm\.options, template_file: .*harm\.txt cannot be read \(No"),
        ("{behavior} {generation}", {"template_file": "harm.txt"}, r"has \{behavior\}, \{generation\}\. .*\{answer\}"),
        ("", {"template_file": "harm.txt"}, "has no field"),
        (b"\xff", {"template_file": "harm.txt"}, "is not text in UTF-8"),
        (PROMPT, {"template_file": "harm.txt", "template": PROMPT}, "got template and template_file, expected one"),
        (PROMPT, {"template_file": ""}, "got '', expected the name of a file"),
        (PROMPT, {"template_file": 3}, "got 3, expected the name of a file"),
        (PROMPT, {"template_file": "."}, "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_prompt_is_refused_by_field_and_file(
    tmp_path: Path, text: str | bytes | None, options: dict[str, Any], why: str
) -> None:
    if text is not None:
        (tmp_path / "harm.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TableError, match=rf"(?s)mine\.yml.*{why}"):
        read_table("alqr_jailbreak", profile=profile(tmp_path, {ASKED: stated(options)}))


_NAMES = st.sampled_from(["judges.judge.options", "judges.harm", "value", "options", "x"])
_PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(_NAMES, below, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50)
@given(_PARTS)
def test_what_names_no_file_stays_as_it_is(told: Any) -> None:
    before = yaml.safe_dump(told)
    assert with_prompts(told, Path("mine.yml")) == told and yaml.safe_dump(told) == before


@pytest.mark.parametrize(("name", "setting"), [("re_control", "hh-vicuna-7b"), ("odesteer", "truth-qwen2.5-7b-fold-0")])
def test_one_line_brings_the_words_before_prompts(tmp_path: Path, name: str, setting: str) -> None:
    shipped = read_profile(profile_file("paper"))
    raw = {"fields": shipped["fields"], "tables": {name: shipped["tables"][name]}}
    fields = raw["tables"][name]["fields"]
    fields["task_options.instruction_file"] = stated("words.txt")
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    with pytest.raises(
        TableError, match=r"instruction_file: .*words\.txt cannot be read .*a file with the instruction"
    ):
        read_table(name, profile=tmp_path / "mine.yml")
    (tmp_path / "words.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(TableError, match=r"words\.txt is empty\. Expected a file with the instruction"):
        read_table(name, profile=tmp_path / "mine.yml")
    (tmp_path / "words.txt").write_text("Be good.\n", encoding="utf-8")
    mine, _ = read_table(name, profile=tmp_path / "mine.yml")
    cells = mine.cells([0], settings=[setting])
    assert all(one.task_options["instruction"] == "Be good." for one in cells)
    assert not any("instruction_file" in one.task_options for one in cells)
    ours = read_table(name, profile="paper")[0].given(setting, next(row for row in mine.rows if row in ROWS_TOLD[name]))
    assert "task_options.instruction_file" in ours["told"].said, "the profile says how to swap the words"
    fields["task_options.instruction"] = stated("Be bad.")
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    with pytest.raises(TableError, match="got the instruction itself, too, expected one of them"):
        read_table(name, profile=tmp_path / "mine.yml")
