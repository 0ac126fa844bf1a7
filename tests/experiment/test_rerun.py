"""A paper's table from the command to the files, on small random models, offline; and what is chosen on the way."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steerlib.commands import tables as command
from steerlib.dry.scale import dry
from steerlib.experiment import barrier_tables, rerun_files, rerun_tables
from steerlib.experiment.cell_records import CellRecord
from steerlib.experiment.cells import Cell
from steerlib.experiment.paper_tables import PaperTableError, papers, published
from steerlib.experiment.profile_tables import TableError
from steerlib.experiment.rerun import Choice, Rerun, in_profile
from steerlib.experiment.rerun_run import both_stages, finder
from steerlib.experiment.rerun_tables import parts
from steerlib.experiment.running import run_cell
from tests.experiment import toys
from tests.typed import typed

#: Table -> the settings that are run by default; the slow tier runs all of the first model.
FEW = {
    ("odesteer", "2"): ["truth-falcon-7b-fold-0"],
    ("odesteer", "9"): ["truth-falcon-7b-fold-0"],
    ("odesteer", "figure-6"): ["truth-llama-3.1-8b-fold-0"],
    ("re_control", "main"): ["shp-llama-3-8b"],
}
MADE = [(paper, name) for paper, known in papers().items() for name, entry in known.tables.items() if entry.table]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of small models, data and records for all: tables share cells."""
    return tmp_path_factory.mktemp("dry")


def run(home: Path, paper: str, table: str, *more: str, profile: str = "paper") -> str:
    told = ["table", "--paper", paper, "--table", table, "--profile", profile, "--dry-scale", "--dry-home", str(home)]
    return typed(*told, *more).output


def settings(*names: str) -> list[str]:
    return [part for name in names for part in ("--setting", name)]


def written(home: Path, paper: str, table: str, profile: str = "paper") -> dict[str, Any]:
    return json.loads((home / "tables" / f"{paper}-{table}-{profile}-dry.json").read_text())


@pytest.mark.parametrize(("paper", "table"), list(FEW))
def test_the_command_of_a_table_goes_the_whole_way(home: Path, paper: str, table: str) -> None:
    before = {name: os.environ.get(name) for name in ("STEERLIB_DATA", "STEERLIB_ROLLOUTS", "HF_HUB_OFFLINE")}
    told = run(home, paper, table, *settings(*FEW[paper, table]))
    assert told.count(rerun_files.DRY) == 2 and "0 failed, 0 are left" in told
    note = papers()[paper].tables[table].note
    assert (f"To be read with: {note}." in " ".join(told.split())) is bool(note)
    assert {name: os.environ.get(name) for name in before} == before, "what it sets for itself it takes back"
    check(home, paper, table, "paper", FEW[paper, table])


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["paper", "gpu"])
@pytest.mark.parametrize(("paper", "table"), MADE)
def test_every_table_of_every_profile(home: Path, paper: str, table: str, profile: str) -> None:
    entry = papers()[paper].tables[table]
    try:
        Rerun.of(paper, table, profile=profile)
    except PaperTableError as error:
        pytest.skip(f"not in this profile: {error}") if "not in this profile" in str(error) else pytest.fail(str(error))
    assert in_profile(entry, profile)
    run(home, paper, table, profile=profile)
    check(home, paper, table, profile, None)


@pytest.mark.slow
def test_every_setting_of_the_main_tables(home: Path) -> None:
    for paper, table in (("odesteer", "2"), ("re_control", "main")):
        names = Rerun.of(paper, table, profile="paper").settings
        run(home, paper, table, *settings(*names))
        check(home, paper, table, "paper", list(names))


def check(home: Path, paper: str, table: str, profile: str, chosen: list[str] | None) -> None:
    """Rows and columns as published, in finite numbers, with their n; all of it marked as dry."""
    found, entry = written(home, paper, table, profile), papers()[paper].tables[table]
    spec = Rerun.of(paper, table, profile=profile).spec
    assert found["dry"] and found["title"].startswith(rerun_files.DRY)
    assert chosen is None or found["settings"] == chosen
    rows = found["rows"]
    assert all(row["warning"] == rerun_files.DRY for row in rows)
    ours = [row for row in rows if row["value"] is not None]
    assert ours and all(row["low"] <= row["value"] <= row["high"] and row["n"] >= 4 for row in ours)
    names = {row["row"] for row in ours}
    if entry.vary is None:
        left = {row["row"] for row in rows if row["left_out"]}
        assert names | left >= set(spec.rows) and "unsteered" in names
    else:
        assert len(names) == 1 + 2 * len(entry.vary.rows), "the plant alone, and two values of each row"
    heads = {row["column"].removesuffix(", %") for row in ours}
    known = published(paper).get(table, {})
    for part in {row["part"] for row in rows} & set(known):
        shown = {(row["row"], row["column"].removesuffix(", %")) for row in rows if row["part"] == part}
        printed = {
            (r, c) for r, columns in known[part].items() for c in columns if not entry.columns or c in entry.columns
        }
        assert printed <= shown, "nothing that was printed is left out"
    assert heads, "something was measured"
    text = (home / "tables" / f"{paper}-{table}-{profile}-dry.md").read_text()
    assert text.startswith(f"# {rerun_files.DRY}") and all(row["title"] in text for row in ours)
    assert found["drawn"] and all(line[1:] in text for line in found["drawn"]), "how its answers were drawn"
    if paper == "odesteer" and heads != {"MMLU"}:
        assert all("top k 50, repetition penalty 1.1" in line for line in found["drawn"])
    assert not (home.parent / "build").exists()


def test_again_it_computes_nothing_and_a_table_finds_the_cells_of_another(home: Path) -> None:
    setting = settings("truth-falcon-7b-fold-0")
    run(home, "odesteer", "2", *setting)
    assert " 0 computed" in run(home, "odesteer", "2", *setting)
    assert " 0 computed" in run(home, "odesteer", "3", *setting), "its rows are rows of Table 2"
    assert {row["row"] for row in written(home, "odesteer", "3")["rows"]} == {
        "unsteered", "iti", "odesteer", "odesteer-one-step",
    }  # fmt: skip


def test_perplexity_is_read_from_the_answers_by_another_model(home: Path) -> None:
    names = ["toxicity-falcon-7b"]
    first = run(home, "odesteer", "2", *settings(*names))
    check(home, "odesteer", "2", "paper", names)
    assert "gpt2-xl reads the answers of" in first
    rows = [row for row in written(home, "odesteer", "2")["rows"] if row["column"] == "PPL"]
    ours = {row["row"]: row["value"] for row in rows if row["value"] is not None}
    assert {"unsteered", "odesteer", "caa"} <= set(ours) and all(value > 1 for value in ours.values())
    assert len({round(value, 6) for value in ours.values()}) > 3, "laws change what is read"
    assert {row["printed"] for row in rows if row["row"] == "odesteer"} == {16.33}
    other = run(home, "odesteer", "6", *settings(*names))
    assert " 0 computed" in other and "gpt2-xl" not in other, "cells of Table 2, and nothing to read"
    check(home, "odesteer", "6", "paper", names)
    formula(home, names)


def formula(home: Path, names: list[str]) -> None:
    """What is read is the mean over answers of exp of the mean surprise, as `metrics.perplexity` has it for one."""
    from steerlib.experiment.rerun_reading import Reader, asked_of, perplexities, together
    from steerlib.metrics import perplexity
    from steerlib.metrics.text import dist_n
    from steerlib.plant import Plant

    made = Rerun.of("odesteer", "2", profile="paper", settings=names)
    assert asked_of(made) == Reader(model="openai-community/gpt2-xl", of="answer")
    assert asked_of(Rerun.of("odesteer", "6", profile="paper")) is None, "it has no such column"
    assert asked_of(Rerun.of("odesteer", "2", profile="paper", settings=["truth-falcon-7b-fold-0"])) is None
    reader = Plant.load("almanac-llama")
    with dry(made, home, all_settings=True) as (rerun, place):
        done = both_stages(rerun, place, say=lambda _: None)
        record = next(r for r in finder(rerun, place, done.stages).values() if r.cell.split == "test")
        texts = [answer for answer in record.answers if len(reader._ids([answer])[0]) > 1 and answer.strip()]
        by_hand = [perplexity(reader, [""], [text], of="whole") for text in texts]
        assert perplexities(record, reader, Reader(model="x", of="answer")) == pytest.approx(by_hand, rel=1e-4)
        whole = perplexities(record, reader, Reader(model="x", of="whole"))
        assert len(whole) == sum(bool(answer.strip()) for answer in record.answers)
        cut = perplexities(record, reader, Reader(model="x", of="whole", longest=3))
        assert len(cut) == len(whole) and (cut != whole).any()
    found = together(record, 2)
    assert found is not None and found.low <= found.value <= found.high
    assert found.value == dist_n([answer.lower() for answer in record.answers], 2, pooled=True)


@pytest.fixture
def small(home: Path) -> Iterator[tuple[Rerun, dict[Cell, CellRecord], Any]]:
    made = Rerun.of("odesteer", "2", profile="paper", settings=["truth-falcon-7b-fold-0"])
    with dry(made, home, all_settings=True) as (rerun, place):
        done = both_stages(rerun, place, say=lambda _: None)
        yield rerun, finder(rerun, place, done.stages), done


def test_what_is_tested_is_what_validation_chose(small: tuple[Rerun, dict[Cell, CellRecord], Any]) -> None:
    rerun, find, done = small
    (stage,) = done.stages
    tried = {row: {} for row, _, _ in rerun.trials(stage.setting)}
    for row, values, cell in rerun.trials(stage.setting):
        tried[row][values["law.strength"]] = find[cell].metrics["combined"].value
    assert len(tried) == 6 and all(len(found) == 2 for found in tried.values())
    for row, found in tried.items():
        best = stage.choices[row].values["law.strength"]
        assert found[best] == max(found.values()) and not stage.choices[row].stated
        (cell,) = [cell for label, cell in stage.cells if label == row]
        assert cell.law is not None and cell.law.strength == best and cell.split == "test"


def test_with_the_identity_for_a_law_its_row_is_that_of_the_plant_alone(
    small: tuple[Rerun, dict[Cell, CellRecord], Any],
) -> None:
    rerun, find, done = small
    (stage,) = done.stages
    (real,) = parts(rerun, done.stages, find.get)
    swapped = dict(find)
    for label, cell in stage.cells:
        if label in ("odesteer", "iti") and cell.law is not None:
            same = cell.model_copy(update={"law": cell.law.model_copy(update={"strength": 0.0})})
            swapped[cell] = run_cell(same).model_copy(update={"cell": cell})
    (other,) = parts(rerun, done.stages, swapped.get)
    for row in ("odesteer", "iti"):
        for column, entry in other.rows[row].items():
            assert entry.ours == other.rows["unsteered"][column].ours
        assert [e.ours for e in real.rows[row].values()] != [e.ours for e in other.rows[row].values()]
    assert [e.theirs for e in real.rows["iti"].values()] == [e.theirs for e in other.rows["iti"].values()]


def test_a_failure_is_a_gap_and_is_named(small: tuple[Rerun, dict[Cell, CellRecord], Any]) -> None:
    rerun, find, done = small
    (stage,) = done.stages
    lost = [cell for row, _, cell in rerun.trials(stage.setting) if row == "odesteer"]
    partial = {cell: record for cell, record in find.items() if cell not in lost}
    choices = rerun.choices(stage.setting, partial.get)
    assert "odesteer" not in choices and rerun.undecided(stage.setting, choices) == ["odesteer"]
    assert "odesteer" not in {label for label, _ in rerun.tests(stage.setting, choices)}
    # A test cell without a record leaves a dash, and the row stays.
    gone = dict(stage.cells)["caa"]
    (part,) = parts(rerun, done.stages, {c: r for c, r in find.items() if c != gone}.get)
    assert all(entry.ours is None for entry in part.rows["caa"].values())
    assert part.rows["caa"]["T*I, %"].theirs == (35.0, 0.39)


def test_blank_answers_are_counted_below_the_table_and_end_nothing() -> None:
    """One has a reward all the same, as the profile asks for; another, that no judge was asked about, wins nothing."""
    made = Rerun.of("odesteer", "2", profile="paper", settings=["preference-falcon-7b"])
    (setting,) = made.settings
    tried = {row: Choice(values, False, {}, 0) for row, values, _ in made.trials(setting)}
    cells = tuple(made.tests(setting, made.choices(setting, lambda _: None) | tried))
    assert {str(cell.task_options["blank"]) for _, cell in cells} == {"asked"}
    flat = dict.fromkeys(("wanted", "intact"), (0.5,) * 3)

    def found(cell: Cell) -> CellRecord:
        row = barrier_tables.row_of(cell)
        rewards = {"unsteered": (1.0, 2.0, 3.0), "odesteer": (2.0, -4.0, 4.0), "hpr": (2.0, None, 4.0)}
        said = {"odesteer": ("yes", "", "yes"), "hpr": ("yes", " ", "yes")}
        return toys.record(
            cell, scores=flat, more={"reward": rewards.get(row, (0.0, 0.0, 0.0))}, answers=said.get(row, ("yes",) * 3),
            missing={1: "empty answer"} if row == "hpr" else {},
        )  # fmt: skip

    (part,) = parts(made, [rerun_tables.Tested(setting, cells, tried, {})], found)
    assert part.notes == (
        "Blank answers: HPR 3 of 9; ODESteer 3 of 9.", "Not judged: HPR 3 of 9 (3 empty answer).",
    )  # fmt: skip
    numbers = {row: {c: e.ours for c, e in part.rows[row].items() if e.ours is not None} for row in ("hpr", "odesteer")}
    (win, mean), (other_win, other_mean) = (
        [next(e for c, e in numbers[row].items() if c.startswith(head)) for head in ("win rate", "mean reward")]
        for row in ("odesteer", "hpr")
    )
    assert win.value == other_win.value == pytest.approx(200 / 3) and win.n == other_win.n == 9
    assert (mean.value, mean.n) == (pytest.approx(2 / 3), 9) and (other_mean.value, other_mean.n) == (3.0, 6)
    text = rerun_files.markdown(made, [part], dry=False)
    assert all(f"\n{told}\n" in text for told in part.notes)


def test_shards_meet_in_a_store(home: Path, tmp_path: Path) -> None:
    made = Rerun.of("odesteer", "3", profile="paper", settings=["truth-falcon-7b-fold-0"])
    with dry(made, home, all_settings=True) as (rerun, _):
        from steerlib.experiment.store import Store

        place, told = Store(tmp_path / "store"), []
        first = both_stages(rerun, place, shard="1/2", say=told.append)
        assert not first.whole and not first.stages, "nothing is tested before its validation is there"
        second = both_stages(rerun, place, shard="2/2", say=told.append)
        assert second.stages and not second.whole
        assert both_stages(rerun, place, shard="1/2", say=told.append).whole
        assert both_stages(rerun, place, say=told.append).computed == 0


def test_a_setting_that_the_paper_states_is_tested_as_stated() -> None:
    made = Rerun.of("re_control", "main", profile="paper", settings=["hh-vicuna-7b"])
    choices = made.choices("hh-vicuna-7b", lambda _: None)
    assert choices["re-control"].stated and choices["re-control"].values == {
        "law.options.alpha": 0.5, "law.options.steps": 30,
    }  # fmt: skip
    assert set(choices) == {"re-control"}, "of the others nothing is known before validation"
    cells = dict(made.tests("hh-vicuna-7b", choices))
    for row in ("re-control", "re-control-prompting", "shuffled-rewards"):
        law = cells[row].law
        assert law is not None and (law.options["alpha"], law.options["steps"]) == (0.5, 30)
    assert "cd" not in cells and "prompting" in cells
    gpu = Rerun.of("re_control", "main", profile="gpu")
    assert not gpu.choices(gpu.settings[0], lambda _: None), "nobody states settings for these models"


def test_a_figure_varies_one_field_and_nothing_else() -> None:
    made = Rerun.of("odesteer", "figure-4", profile="paper", settings=["truth-llama-3.1-8b-fold-0"])
    assert {row for row, _, _ in made.trials(made.settings[0])} == {"odesteer"}
    begun = command._due(made)
    laws = [cell.law for cell in begun if cell.law is not None]
    assert sorted({law.options["steps"] for law in laws}) == [1, 2, 5, 10, 15, 20]  # type: ignore[type-var]
    assert len({str({**law.options, "steps": 0}) for law in laws}) == 1
    strengths = Rerun.of("odesteer", "figure-5", profile="paper")
    assert not strengths.validation(), "what the figure varies is not chosen"


def test_a_grid_varies_all_its_fields_together() -> None:
    made = Rerun.of("alqr", "sweep-grid", profile="paper", settings=["llama-3-8b"])
    laws = [law for cell in command._due(made) if (law := cell.law) is not None and cell.seed == 0]
    weights = {str([law.options[name] for name in ("q", "r", "setpoint")]) for law in laws}
    assert len(laws) == len(weights) == 5**3 and all(law.options["q_f"] == 1.0 for law in laws)
    assert not made.validation()
    (stage,) = [dict(made.tests("llama-3-8b", {}))]
    assert "q=0.1 r=100 q_f=1 setpoint=2.5" in stage


def test_what_the_earlier_code_drew_without_a_cache_stands_beside_what_the_later_draws_with_one() -> None:
    made = Rerun.of("alqr", "toxicity-no-cache", profile="paper", settings=["gemma-2-2b"])
    tried = {row: Choice(values, False, {}, 0) for row, values, _ in made.trials("gemma-2-2b")}
    cells = dict(made.tests("gemma-2-2b", tried))
    for row in ("a-lqr", "s-pid"):
        with_one, without = cells[f"{row}, dynamic"], cells[f"{row}, none"]
        assert (with_one.settings.cache, without.settings.cache) == (None, "none")
        assert without.law == with_one.law and without.law is not None and without.law.scope == "last"
    main = Rerun.of("alqr", "toxicity", profile="paper", settings=["gemma-2-2b"])
    shared = dict(main.tests("gemma-2-2b", tried))
    assert shared["a-lqr"] == cells["a-lqr, dynamic"], "those of the main table are not computed again"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--paper", "odestear", "--table", "2"], "Did you mean odesteer"),
        (["--paper", "odesteer", "--table", "99"], "table '99', which does not exist"),
        (["--paper", "re_control", "--table", "ood"], "a figure; its number was not found: nothing here makes it"),
        (["--paper", "odesteer", "--table", "7"], "Fix: `steerlib bench true_shapes"),
        (["--paper", "odesteer", "--table", "2", "--profile", "papr"], "Did you mean paper"),
        (["--paper", "odesteer", "--table", "2", "--profile", "tiny"], "not in this profile"),
        (["--paper", "odesteer", "--table", "2", "--setting", "truth"], "setting 'truth', which does not exist"),
        (["--paper", "odesteer", "--table", "6", "--profile", "gpu"], "not in this profile: of its settings"),
        (["--paper", "odesteer"], "without --table, expected one of those above"),
    ],
)
def test_what_cannot_be_made_is_said(arguments: list[str], message: str) -> None:
    found = typed("table", *arguments, code=2)
    assert message in " ".join(found.output.split())


def test_without_a_paper_all_are_listed() -> None:
    for arguments in ([], ["--list"]):
        found = typed("table", *arguments)
        for paper, known in papers().items():
            assert known.title in found.output and f"PAPER={paper}" in found.output


def test_what_is_needed_is_said_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("STEERLIB_CACHE", str(tmp_path))
    monkeypatch.delenv("STEERLIB_JUDGE_KEY", raising=False)
    told = ["--paper", "re_control", "--table", "main", "--setting", "hh-vicuna-7b", "--dry-run"]
    found = typed("table", *told)
    for part in (
        "lmsys/vicuna-7b-v1.5",
        "gpt-4",
        "needs a key, see 1",
        "1. gpt-4: set STEERLIB_JUDGE_KEY",
        "hh_rlhf_helpful",
        "about 13.4 GB",
        "not known until asked",
        "`steerlib fetch --profile paper --table re_control --setting hh-vicuna-7b` fetches it",
        "validation: ",
        "what will differ from the paper: the column of hours is lacking",
        "test: 13 cells",
        "time, by arithmetic, nothing of it measured: about ",
        "on one NVIDIA A100 80 GB (SXM)",
        "3,900 answers that gpt-4 is asked about",
        "189.8 GB of states of answers",
    ):
        assert part in found.output, part
    other = typed("table", *told, "--gpu", "rtx-4090", code=None)
    assert "this GPU has 24.0 GB, which is too little" in other.output
    assert "Did you mean h200" in typed("table", *told, "--gpu", "h20", code=2).output
    assert not list(tmp_path.iterdir())


def test_offline_with_nothing_here_it_stops_before_the_first_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("STEERLIB_MODELS", raising=False)
    told = ["--paper", "alqr", "--table", "refusal", "--setting", "gemma-2-2b-instruct", "--store", tmp_path / "store"]
    found = typed("table", *told, "--out", tmp_path / "out", code=2)
    said = " ".join(found.output.split())
    assert "HF_HUB_OFFLINE is set, and no setting has all that it needs: google/gemma-2-2b-it" in said
    assert "Fix: unset it and run `steerlib fetch --profile paper --table alqr_jailbreak`, or put folders" in said
    assert "failed:" not in said and not (tmp_path / "out").exists()


def test_numbers_are_written_with_their_interval_and_deviation() -> None:
    from steerlib.experiment.rerun_tables import Entry
    from steerlib.metrics import Estimate

    assert rerun_files.ours_text(Entry(Estimate(0.1234, 0.1, 0.2, 30), None)) == "0.123 [0.100, 0.200], n 30"
    assert rerun_files.ours_text(Entry(Estimate(42.25, 40.0, 44.0, 817), None)) == "42.2 [40.0, 44.0], n 817"
    assert rerun_files.ours_text(Entry(None, (1.0,))) == "–"
    assert rerun_files.printed_text((42.2, 0.115)) == "42.2 ± 0.115" and rerun_files.printed_text(None) == "–"


def test_a_table_of_the_chapters_rows_is_unchanged_by_this(small: tuple[Rerun, dict[Cell, CellRecord], Any]) -> None:
    rerun, find, done = small
    cells = [cell for _, cell in done.stages[0].cells]
    ours, (part,) = barrier_tables.table([find[cell] for cell in cells]), parts(rerun, done.stages, find.get)
    for row, columns in ours.items():
        for column, estimate in columns.items():
            shown = part.rows[row][f"{column}, %"].ours
            assert shown is not None and shown.value == pytest.approx(100 * estimate.value) and shown.n == estimate.n


def test_an_unknown_setting_is_an_error_of_the_table() -> None:
    with pytest.raises(TableError, match="Did you mean"):
        Rerun.of("re_control", "main", profile="paper", settings=["hh-vicuna"])
