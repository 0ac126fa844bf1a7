"""`steerlib tune`: plants of a profile's table tuned by DPO and by PPO, beside what the store has of the plant itself.

Knows how to ask and how to print; everything else is in `steerlib.experiment.tuned`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from steerlib.commands.screen import console, ending, errors, say

if TYPE_CHECKING:
    from steerlib.experiment.tuned import Run
    from steerlib.experiment.value_tables import Row

#: Rows of tuned plants, as they are printed.
TITLES = {"dpo": "DPO", "dpo-prompting": "DPO + Prompting", "ppo": "PPO", "ppo-prompting": "PPO + Prompting"}


def tune(
    setting: Annotated[str, typer.Option(help="of the table: one plant on one data set, such as hh-vicuna-7b")],
    profile: Annotated[str, typer.Option(help="paper, gpu, or a .yml of your own")] = "paper",
    table: Annotated[str, typer.Option(help="of the profile, one that says under `tuning` how")] = "re_control",
    method: Annotated[list[str] | None, typer.Option(help="dpo or ppo; by default all that the table has")] = None,
    device: Annotated[str | None, typer.Option(help="where to run, such as cuda")] = None,
    adapters: Annotated[Path, typer.Option(help="folder of the adapters")] = Path("build/adapters"),
    store: Annotated[Path, typer.Option(help="folder of the records")] = Path("build/store"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would be trained, by which numbers, and train nothing")
    ] = False,
) -> None:
    """Tune the plant of a setting by DPO and PPO, once for each seed, and score it; exits 1 if a cell failed.

    What is finished is kept whatever happens, and training goes on where it was: interrupt it, kill it, run it again.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with ending(stopped="stopped; what was learned and finished cells are kept, the same command goes on"):
        from steerlib.experiment import tuned
        from steerlib.experiment.profile_fields import TableError
        from steerlib.experiment.profile_tables import read_table
        from steerlib.experiment.store import Store

        spec, seeds = read_table(table, profile=profile)
        folder = adapters / Path(profile).stem
        planned = tuned.runs(spec, setting, seeds, methods=method or sorted(spec.tuning), folder=folder)
        if not planned:
            raise TableError(f"{profile}, table {table}: says nothing under `tuning`. Fix: see table re_control of gpu")
        if device is None and not dry_run:
            say("on the processor, since no --device names a GPU (--device cuda): many times slower than that")
        for number, run in enumerate(planned, 1):
            recipe = tuned.recipe(spec, run.method)
            say(f"{number} of {len(planned)}, {run.folder}: {run.base.plant}, {recipe}")
            if not dry_run:
                parameters, seconds = tuned.learn(run, recipe, device=device or "cpu")
                say(f"  {parameters:,} numbers, {seconds:.0f} s of training")
        if dry_run:
            return
        place = Store(store)
        failed = tuned.answer(planned, place, device=device or "cpu")
        console.print(_table(tuned.rows(spec, setting, planned, place), planned, f"{setting}, profile {profile}"))
        for cell, why in failed.items():
            say(f"failed: {cell.title}: {why}", to=errors)
        if failed:
            raise typer.Exit(1)


def _table(found: Mapping[str, Row], planned: Sequence[Run], title: str) -> Table:
    """Rows as they are printed, with what training took."""
    from steerlib.experiment.showing import interval
    from steerlib.experiment.value_tables import COLUMNS, ROWS
    from steerlib.tuning.adapters import read_tuning

    table = Table(title=title, title_justify="left")
    for head in ("row", *COLUMNS.values(), "KL, nats per token", "numbers trained", "seconds of training"):
        table.add_column(head, overflow="fold")
    for name, row in found.items():
        estimates = [row.estimate(column) for column in COLUMNS]
        cards = [read_tuning(run.folder) for run in planned if name in run.cells]
        table.add_row(
            {**ROWS, **TITLES}[name],
            *(interval(estimate, 3) for estimate in estimates),
            "" if math.isnan(row.kl) else f"{row.kl:.3f}",
            f"{cards[0]['parameters']:,}" if cards else "",
            f"{sum(card['seconds'] for card in cards) / len(cards):.0f}" if cards else "",
        )
    return table
