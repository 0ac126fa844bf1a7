"""Penalty, ban and top-k of a cell: they reach the answers and what is learned from answers, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from typer.testing import CliRunner

from steerlib import cli
from steerlib.decoding.repetition import less_repetitive
from steerlib.experiment import cells, running
from steerlib.experiment.cells import Cell, Sampling, canonical, code_hash
from steerlib.experiment.drawing import answers_folder, drawing_lines
from steerlib.experiment.keys import key_of
from steerlib.experiment.profile_tables import read_table
from steerlib.experiment.running import CellError, run_cell, task_and_law
from steerlib.tasks.base import spread
from steerlib.tasks.preferred import Preferred
from steerlib.tasks.streamed import rollouts_folder

ROOT = Path(cells.__file__).resolve().parents[2]
ASKED = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2}
VALUE = {
    "name": "re-control", "layer": -1, "point": "final_norm", "fit": {"n": 3},
    "options": {"passes": 2, "batch": 4, "hidden": 8, "alpha": 0.5, "steps": 2},
}  # fmt: skip


def cell(settings: dict[str, Any] | None = None, **more: Any) -> Cell:
    raw = {"plant": "almanac-llama-tiny", "task": "almanac-preferred", "kind": "sampled", "limit": 3}
    return Cell.model_validate({**raw, "settings": settings or {}, **more})


# ---- as data -------------------------------------------------------------------------------------


def test_cells_without_them_are_written_as_before_and_each_of_them_decides() -> None:
    assert "settings" not in canonical(cell()) or '"settings":{}' in canonical(cell())
    several = [
        cell(), cell({"top_k": 50}), cell({"repetition_penalty": 1.1}), cell({"repetition_penalty": 1.2}),
        cell({"repetition_penalty": 1.0}), cell({"no_repeat_ngram_size": 2}), cell(ASKED),
    ]  # fmt: skip
    assert len({key_of(one) for one in several}) == len({canonical(one) for one in several}) == len(several)
    assert all(Cell.model_validate_json(canonical(one)) == one for one in several)
    assert cell(ASKED).title.endswith("(sampled, seed 0, repetition_penalty 1.5, no_repeat_ngram_size 2)")


@pytest.mark.parametrize(("settings", "decides"), [({"repetition_penalty": 1.0}, True), ({"top_k": 5}, False)])
def test_the_code_of_the_penalty_decides_where_there_is_one(
    tmp_path: Path, settings: dict[str, Any], decides: bool
) -> None:
    shutil.copytree(ROOT / "steerlib", tmp_path / "steerlib", ignore=shutil.ignore_patterns("__pycache__"))
    one = cell(settings)
    before = code_hash(one, root=tmp_path)
    path = tmp_path / "steerlib" / "decoding" / "repetition.py"
    path.write_text(path.read_text() + "\n# a remark\n")
    cells._sources.cache_clear()
    assert (code_hash(one, root=tmp_path) != before) is decides


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"repetition_penalty": 0}}, "greater than 0"),
        ({"settings": {"repetition_penalty": -1.2}}, "greater than 0"),
        ({"settings": {"repetition_penalty": float("nan")}}, "finite number|greater than 0"),
        ({"settings": {"no_repeat_ngram_size": 0}}, "greater than or equal to 1"),
        ({"settings": {"no_repeat_ngram_size": 2.5}}, "valid integer"),
        ({"settings": {"top_k": 0}}, "greater than or equal to 1"),
        ({"settings": {"cache": "static"}}, "Input should be 'none'"),
        ({"settings": {"cache": "none"}, "decoder": {"name": "cd"}}, "decoder='cd', which keeps caches of its own"),
        ({"settings": ASKED, "kind": "exact"}, "with kind='exact', where nothing is sampled"),
        ({"settings": ASKED, "decoder": {"name": "cd"}}, "decoder='cd', which scores candidates by the plant's plain"),
        (
            {"settings": ASKED, "decoder": {"name": "prompted", "inner": {"name": "cd"}}},
            "decoder='prompted', which scores",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Cell.model_validate({"plant": "p", "task": "truth", "kind": "sampled", **change})


def test_a_decoder_that_draws_by_itself_may_say_that_there_is_no_penalty() -> None:
    assert cell({"repetition_penalty": 1.0}, decoder={"name": "cd"}).decoder is not None
    assert cell(ASKED, decoder={"name": "best-of-n"}).settings.repetition == ASKED


# ---- run -----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Preferred, "answer_tokens", 12)


@pytest.fixture
def task() -> Preferred:
    return Preferred(running.plant_of("almanac-llama-tiny", "cpu"))


def by_hand(task: Preferred, **how: Any) -> tuple[str, ...]:
    prompts = [item.text for item in spread(task.items("test"), 3)]
    return tuple(text.partition("\n")[0] for text in task.plant.generate(prompts, max_new_tokens=12, **how).texts)


def test_they_reach_the_answers_and_do_not_stay(task: Preferred) -> None:
    before = run_cell(cell(seed=4))
    found = run_cell(cell({**ASKED, "top_k": 3}, seed=4))
    with less_repetitive(task.plant, **ASKED):
        assert found.answers == by_hand(task, seed=4, top_k=3)
    assert found.answers != before.answers == run_cell(cell(seed=4)).answers == by_hand(task, seed=4)
    assert found.cell.settings.given == {**ASKED, "top_k": 3} and found.key != before.key


def test_a_law_and_prompting_act_under_them(task: Preferred) -> None:
    law = {"name": "random-direction", "layer": 0, "strength": 300.0}
    bare, pushed = run_cell(cell(ASKED)), run_cell(cell(ASKED, law=law))
    assert len({bare.answers, pushed.answers, run_cell(cell(law=law)).answers}) == 3
    told = run_cell(cell(ASKED, decoder={"name": "prompted", "options": {"instruction": "Adviser: Wilmot.\n"}}))
    assert told.counted["passes"] > 0 and told.answers != bare.answers


def test_without_a_cache_a_law_at_the_last_position_leaves_no_trace(task: Preferred) -> None:
    """The same numbers without a law; under one, other answers, and no divergence that a reading would get wrong."""
    law = {"name": "difference-of-means", "layer": 1, "scope": "last", "strength": 60.0, "fit": {"n": 20}}
    assert cell({"cache": "dynamic"}) == cell() and key_of(cell({"cache": "none"})) != key_of(cell())
    assert run_cell(cell({"cache": "none"})).answers == run_cell(cell()).answers
    bare, kept = (run_cell(cell(settings, law=law)) for settings in ({"cache": "none"}, None))
    assert bare.answers != kept.answers
    fitted = task_and_law(cell(law=law))[1]
    with task.plant.under(fitted, scope="last"):
        assert bare.answers == by_hand(task, seed=0, cache="none")
    assert "kl" in kept.metrics and not {"kl", "kl-p95", "energy"} & bare.metrics.keys()
    (line,) = drawing_lines([bare.cell])
    assert "cache none" in line and "cache none" in bare.cell.title


def test_a_task_with_settings_of_its_own_takes_them_beside_those(
    monkeypatch: pytest.MonkeyPatch, task: Preferred
) -> None:
    monkeypatch.setattr(Preferred, "settings", "odesteer", raising=False)
    with pytest.raises(CellError, match=r"settings of its own. Fix: give {'top_p': 0.5} as task_options.settings"):
        run_cell(cell({**ASKED, "top_p": 0.5, "top_k": 2}))
    found = run_cell(cell({**ASKED, "top_k": 2})).answers
    with less_repetitive(task.plant, **ASKED):
        assert found == by_hand(task, seed=0, top_k=2)


def test_values_are_learned_from_answers_under_them() -> None:
    def weights(settings: dict[str, Any] | None) -> torch.Tensor:
        law = task_and_law(cell(settings, law=VALUE))[1]
        return torch.cat([tensor.flatten() for _, tensor in sorted(law.named_buffers())])

    plain, asked = weights({}), weights(ASKED)
    assert not torch.equal(plain, asked), "other answers are remembered apart"
    assert torch.equal(plain, weights({})) and torch.equal(asked, weights(ASKED))
    for kept in (running._answers, running._law):
        kept.cache_clear()
    assert torch.equal(asked, weights(ASKED))


def test_states_of_their_answers_lie_in_a_folder_of_their_own() -> None:
    folders = [answers_folder(canonical(Sampling(**own).repetition)) for own in ({}, {"top_k": 3}, ASKED)]
    folders.append(answers_folder(canonical(Sampling(repetition_penalty=1.1).repetition)))
    assert folders[0] == folders[1] == rollouts_folder() and len(set(folders)) == 3
    assert all(folder.parent == rollouts_folder() for folder in folders[2:])


# ---- of the papers -------------------------------------------------------------------------------

#: Table -> task -> what its answers are drawn under; and rows that are drawn otherwise.
STATED: dict[str, dict[str, dict[str, Any]]] = {
    "odesteer": {
        "truthfulqa": {"repetition_penalty": 1.1, "top_k": 50},
        "real-toxicity": {"repetition_penalty": 1.1, "top_k": 50},
        "preference": {"repetition_penalty": 1.1, "top_k": 50, "no_repeat_ngram_size": 2},
    },
    "alqr_toxicity": {"real-toxicity": {"repetition_penalty": 1.2, "top_k": 50}},
    "alqr_truth": {"truthfulqa": {"repetition_penalty": 1.2, "top_k": 50}},
    "alqr_concepts": {"onesec": {"repetition_penalty": 1.2, "top_k": 50}},
    "re_control": {"preference": {"repetition_penalty": 1.0}},
}


@pytest.mark.parametrize(
    ("profile", "table"),
    [(profile, table) for profile in ("paper", "gpu") for table in STATED if (profile, table) != ("gpu", "alqr_truth")],
)
def test_the_papers_tables_are_drawn_as_the_papers_say(profile: str, table: str) -> None:
    spec, seeds = read_table(table, profile=profile)
    found: dict[str, list[dict[str, Any]]] = {}
    for one in spec.cells(seeds[:1]):
        found.setdefault(one.task, []).append(one.settings.given)
    assert all(given == STATED[table][task] for task, several in found.items() for given in several)
    for setting in spec.settings:
        given = spec.given(setting, "unsteered")
        named = [name for name in given if name.startswith("settings.")]
        assert named and all(given[name].said or given[name].chosen for name in named)


def test_only_unsteered_jailbreaks_are_penalised_as_in_the_released_code() -> None:
    spec, seeds = read_table("alqr_jailbreak", profile="paper")
    for one in spec.cells(seeds[:1]):
        assert one.settings.given == ({} if one.law is not None else {"repetition_penalty": 1.2})


def test_every_way_of_drawing_is_said_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    spec, seeds = read_table("odesteer", profile="paper")
    lines = drawing_lines(spec.cells(seeds[:1]))
    assert lines == [
        "answers to truthfulqa, real-toxicity: max new tokens 50, temperature 0.7, top p 0.9, top k 50, "
        r"repetition penalty 1.1, cut at '\nQ:'",
        "answers to preference: max new tokens 128, temperature 0.7, top p 0.9, top k 50, repetition penalty 1.1, "
        r"no repeat ngram size 2, cut at '\nQ:'",
    ]
    spec, seeds = read_table("re_control", profile="paper")
    (line,) = drawing_lines(spec.cells(seeds, settings=["hh-vicuna-7b"]))
    assert line.startswith("answers to preference: max new tokens 128, temperature 0, repetition penalty 1, cut for ")
    assert (
        r"cut for reward at '(?i:human:)', cut for diversity, coherence and wins at '###USER:' or '\n\nUSER:'" in line
    )
    told = ["table", "--paper", "alqr", "--table", "refusal", "--profile", "paper", "--dry-run"]
    found = CliRunner().invoke(cli.app, [*told, "--setting", "gemma-2-2b-instruct"])
    assert found.exit_code == 0, found.output
    said = " ".join(found.output.split())
    assert "answers to harmful-requests, unsteered: max new tokens 512, temperature 0, repetition penalty 1.2" in said
    assert "temperature 0, repetition penalty as the model's own generation_config says" in said
    assert drawing_lines([cell(kind="exact")]) == []
