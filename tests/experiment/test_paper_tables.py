"""The registry of the papers' tables: every entry can be made, or says why not; printed numbers are the claims'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from steerlib.experiment.claims import load_claims
from steerlib.experiment.paper_tables import PaperTableError, paper_table, papers, published
from steerlib.experiment.profile_tables import read_table
from steerlib.experiment.rerun import Rerun, in_profile
from steerlib.experiment.rerun_list import listed

PROFILES = ("paper", "gpu")
#: Names in claims -> names of rows.
ROWS = {
    "original": "unsteered", "base": "unsteered", "linear_act": "linear-act", "re_control": "re-control",
    "one_step": "odesteer-one-step", "ten_steps": "odesteer", "cd_prefix": "cd-prefix", "s_pid": "s-pid",
    "a_lqr": "a-lqr", "re_control_prompting": "re-control-prompting", "act_add": "act-add",
    "mean_act": "mean-act", "pid_act": "pid-act", "a_lqr_plus": "a-lqr-all",
}  # fmt: skip
#: What claims are about, by the beginning of their names -> paper, table, column.
ABOUT = {
    "odesteer.t2.txi.": ("odesteer", "2", "T*I"), "odesteer.t2.true.": ("odesteer", "2", "True"),
    "odesteer.t2.info.": ("odesteer", "2", "Info"), "odesteer.t2.win.": ("odesteer", "2", "win rate"),
    "odesteer.t2.reward.": ("odesteer", "2", "mean reward"), "odesteer.t2.toxicity.": ("odesteer", "2", "toxicity"),
    "odesteer.t2.ppl.": ("odesteer", "2", "PPL"), "odesteer.t3.txi.": ("odesteer", "3", "T*I"),
    "odesteer.t3.win.": ("odesteer", "3", "win rate"), "odesteer.t3.toxicity.": ("odesteer", "3", "toxicity"),
    "odesteer.t7.": ("odesteer", "7", "tokens per second"), "recontrol.t1.win.": ("re_control", "main", "Win rate"),
    "recontrol.t1.reward.": ("re_control", "main", "Average reward"),
    "recontrol.t1.time.": ("re_control", "main", "hours"),
    "recontrol.t1.second.": ("re_control", "main", "Average reward"),
    "alqr.tqa.txi.": ("alqr", "truthfulqa", "T*I"), "alqr.tqa.true.": ("alqr", "truthfulqa", "True"),
    "alqr.tox.beats-all": ("alqr", "toxicity", "toxic share"), "alqr.tox.ppl.": ("alqr", "toxicity", "PPL"),
    "alqr.refusal.every": ("alqr", "refusal", "ASR"),
}  # fmt: skip
#: Models in claims of A-LQR -> as the profile's ids end.
MODELS = {"llama-3-8b": "meta-llama-3-8b", "gemma-2-9b-instruct": "gemma-2-9b-it"}


def test_printed_numbers_are_those_of_the_claims() -> None:
    compared = 0
    for name, claim in load_claims().items():
        about = next((place for start, place in ABOUT.items() if name.startswith(start)), None)
        if about is None:
            continue
        paper, table, column = about
        for part, rows in claim.published.items():
            part = MODELS.get(part, part)
            for row, number in rows.items():
                known = published(paper)[table].get(part, {}).get(ROWS.get(row, row), {}).get(column)
                # Claims about deviations and best baselines have rows of their own.
                if known is not None:
                    assert known[0] == pytest.approx(number), (name, part, row)
                    compared += 1
    assert compared > 300


def test_every_printed_row_is_one_that_the_table_can_have() -> None:
    for paper in papers():
        for table, parts in published(paper).items():
            entry = papers()[paper].tables[table]
            profile = next((p for p in PROFILES if entry.table and in_profile(entry, p)), None)
            if profile is None or entry.vary is not None:
                continue
            spec, _ = read_table(entry.table, profile=profile)
            for part, rows in parts.items():
                assert set(rows) <= set(spec.rows), (paper, table, part)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_entry_has_a_state_and_those_of_the_profile_make_cells(profile: str) -> None:
    for paper in papers():
        for line in listed(paper, [profile]):
            entry, state = line.entry, line.states[profile]
            assert (state == "") is not bool(entry.table)
            if not entry.table:
                assert entry.nothing or entry.elsewhere
                with pytest.raises(PaperTableError, match="nothing here makes it|is not made of records"):
                    Rerun.of(paper, line.name, profile=profile)
            elif state == "not in this profile":
                with pytest.raises(PaperTableError, match="not in this profile"):
                    Rerun.of(paper, line.name, profile=profile)
            else:
                made = Rerun.of(paper, line.name, profile=profile)
                assert made.settings == made.whole and made.seeds
                assert all(cell.split == "validation" for cell in made.validation())
                assert state.startswith(f"{len(made.settings)} setting")


def test_the_tables_of_all_three_papers_are_there() -> None:
    assert set(papers()) == {"odesteer", "re_control", "alqr"}
    assert paper_table("odesteer", "Table 2") is paper_table("ODESteer", "2")
    assert paper_table("re-control", "main").table == "re_control"
    assert paper_table("odesteer", "Figure 4").vary is not None


@pytest.mark.parametrize(
    ("paper", "table", "message"),
    [
        ("odestear", "2", "got paper 'odestear', which does not exist. Did you mean odesteer"),
        ("odesteer", "12", "odesteer: got table '12', which does not exist"),
        ("alqr", "toxicty", "Did you mean toxicity"),
    ],
)
def test_names_that_are_none(paper: str, table: str, message: str) -> None:
    with pytest.raises(PaperTableError, match=message):
        paper_table(paper, table)


GOOD: dict[str, Any] = {"printed": "Table 1", "shows": "something", "table": "t"}
VARY: dict[str, Any] = {"rows": ["a"], "field": "f", "values": [1, 2]}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**GOOD, "nothing": "why"}, "expected one of `table`, `elsewhere` and `nothing`, got 2"),
        ({"printed": "Table 1", "shows": "something"}, "got 0 of them"),
        ({**GOOD, "rowz": ["a"]}, "rowz: Extra inputs"),
        ({"printed": "T", "shows": "s", "nothing": "why", "rows": ["a"]}, "are for what a `table` of a profile makes"),
        ({**GOOD, "rows": ["a"], "vary": {**VARY, "said": "x"}}, "leave rows out"),
        ({**GOOD, "vary": VARY}, "expected either `said`"),
        ({**GOOD, "vary": {**VARY, "values": [1], "said": "x"}}, "at least two values"),
        ({**GOOD, "vary": {"rows": ["a"], "said": "x"}}, "expected either `field` with `values`, or `grid`"),
        ({**GOOD, "vary": {**VARY, "grid": {"g": [1]}, "said": "x"}}, "expected either `field` with `values`, or"),
        ({**GOOD, "vary": {"rows": ["a", "b"], "grid": {"f": [1, 2]}, "said": "x"}}, "one row for a grid"),
    ],
)  # fmt: skip
def test_a_registry_that_is_none(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    file = tmp_path / "tables.yml"
    file.write_text(yaml.safe_dump({"p": {"title": "P", "cite": "p2026", "tables": {"1": entry}}}))
    with pytest.raises(PaperTableError, match=f"(?s)tables.yml, p:.*{message}"):
        papers(file)
