"""`steerlib table`: a table or figure of a paper, run again.

Knows how to ask and how to print; everything else is in `steerlib.experiment` and `steerlib.dry`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from steerlib.commands.screen import console, ending, errors, say
from steerlib.errors import SteerlibError

if TYPE_CHECKING:
    from steerlib.experiment.cells import Cell
    from steerlib.experiment.rerun import Rerun
    from steerlib.experiment.store import Store

PROFILES = ("paper", "gpu")


def table(
    paper: Annotated[str | None, typer.Option(help="odesteer, re_control or alqr; none for the list")] = None,
    number: Annotated[
        str | None, typer.Option("--table", help="as the list has it, such as 2, main or figure-4")
    ] = None,
    profile: Annotated[str, typer.Option(help="paper, gpu, or a .yml of your own")] = "paper",
    setting: Annotated[list[str] | None, typer.Option(help="only this column of settings; repeat it")] = None,
    store: Annotated[Path, typer.Option(help="folder of the records")] = Path("build/store"),
    out: Annotated[Path, typer.Option(help="folder of the finished table")] = Path("build/tables"),
    jobs: Annotated[int, typer.Option(min=1, help="cells at a time; cores are divided among them")] = 1,
    device: Annotated[list[str] | None, typer.Option(help="where to run; repeat it for several GPUs")] = None,
    shard: Annotated[str, typer.Option(help="only a part of the cells that are due, such as 2/8")] = "1/1",
    listing: Annotated[bool, typer.Option("--list", help="show all tables with their command and state")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what is needed, its size and the time, compute nothing")
    ] = False,
    ask: Annotated[
        bool, typer.Option("--ask", help="ask the hub for sizes, licences and gates of what nobody fetched yet")
    ] = False,
    gpu: Annotated[
        str | None, typer.Option(help="GPU of the estimate, such as h100-80gb; by default the one that is here")
    ] = None,
    dry_scale: Annotated[
        bool,
        typer.Option("--dry-scale", help="the whole way in seconds, without a network, on small random models"),
    ] = False,
    dry_home: Annotated[Path, typer.Option(help="folder of --dry-scale")] = Path("build/dry"),
) -> None:
    """Make a table or figure of a paper: validate, choose, test, print, write; exits 1 if a cell failed.

    Finished cells are kept whatever happens: interrupt it, kill it, run it again.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with ending():
        if listing or paper is None:
            _list(paper)
            return
        if number is None:
            _list(paper)
            raise SteerlibError(f"got --paper {paper} without --table, expected one of those above")
        from steerlib.experiment.rerun import Rerun
        from steerlib.experiment.rerun_needs import refuse_in_vain
        from steerlib.experiment.store import Store

        rerun = Rerun.of(paper, number, profile=profile, settings=setting or ())
        if dry_scale:
            from steerlib.dry.scale import dry

            with dry(rerun, dry_home, all_settings=bool(setting)) as (small, place):
                _make(small, place, dry_home / "tables", jobs, tuple(device or ["cpu"]), "1/1", dry=True)
            return
        place = Store(store)
        if dry_run:
            _forecast(rerun, place, ask=ask, gpu=gpu)
            return
        _forecast(rerun, place, ask=ask, gpu=gpu)
        refuse_in_vain(rerun)
        if not device:
            say("on the processor, since no --device names a GPU (--device cuda): many times slower than that")
        _make(rerun, place, out, jobs, tuple(device or ["cpu"]), shard, dry=False)


def _list(paper: str | None) -> None:
    from steerlib.experiment.paper_tables import paper_named, papers
    from steerlib.experiment.rerun_list import listed

    names = [paper_named(paper)] if paper else list(papers())
    for name in names:
        shown = Table(title=escape(papers()[name].title), title_justify="left", show_lines=True)
        for column in ("table", "shows", "command", *PROFILES):
            shown.add_column(column, overflow="fold")
        for line in listed(name, PROFILES):
            states = [escape(line.states[profile]) for profile in PROFILES]
            shown.add_row(
                escape(f"{line.name}: {line.entry.printed}"), escape(line.entry.shows), escape(line.command), *states
            )
        console.print(shown)


def _forecast(rerun: Rerun, place: Store, *, ask: bool, gpu: str | None) -> None:
    """What is needed, what is here, what is missing, and how long it may take."""
    from steerlib.commands.forecasts import forecast_lines, foretell, plan_lines, show_plan
    from steerlib.commands.grids import estimate
    from steerlib.experiment.drawing import drawing_lines
    from steerlib.experiment.grid import missing
    from steerlib.experiment.rerun_needs import work
    from steerlib.experiment.rerun_plan import plan
    from steerlib.experiment.rerun_reading import asked_of

    first, second = rerun.validation(), _due(rerun)
    cells = [*first, *second]
    reader = asked_of(rerun)
    found = plan(cells, reader=reader and reader.model, ask=ask)
    show_plan(found, f"{rerun.paper}, {rerun.entry.printed}, profile {rerun.profile}")
    for line in plan_lines(found, rerun):
        say(line)
    for line in drawing_lines(cells):
        say(line)
    if rerun.entry.note:
        say(f"what will differ from the paper: {rerun.entry.note}")
    say(f"validation: {work(first)}")
    say(f"test: {work(second)}")
    lacking = cells
    if found.present:
        lacking = missing(cells, place)
        told = estimate(lacking, place)
        say(f"{len(cells) - len(lacking)} of {len(cells)} cells are in {place.folder}{told}")
    else:
        say("what is missing is looked for in the store once all of it is here")
    for line in forecast_lines(foretell(lacking, gpu, reader=reader and reader.model), len(lacking)):
        say(line)


def _due(rerun: Rerun) -> list[Cell]:
    """The cells of the second stage as the profile begins: as many as validation will leave."""
    from steerlib.experiment.rerun_needs import begun

    return list(dict.fromkeys(cell for setting in rerun.settings for cell in begun(rerun, setting)))


def _make(rerun: Rerun, place: Store, out: Path, jobs: int, devices: Sequence[str], shard: str, *, dry: bool) -> None:
    """Both stages, and the table."""
    from steerlib.experiment.drawing import drawing_lines
    from steerlib.experiment.rerun_files import DRY, terminal, title, write
    from steerlib.experiment.rerun_reading import asked_of, read_all
    from steerlib.experiment.rerun_run import both_stages, finder
    from steerlib.experiment.rerun_tables import parts

    if dry:
        console.print(DRY, style="bold", highlight=False)
    done = both_stages(rerun, place, jobs=jobs, devices=devices, shard=shard, say=say)
    for why in place.damaged:
        say(f"set aside and computed anew: {why}", to=errors)
    if not done.whole:
        say(f"{done.told}; the table is printed once every part of it has been computed: the same command goes on")
        raise typer.Exit(1 if done.failed else 0)
    find = finder(rerun, place, done.stages)
    tested = [record for one in done.stages for _, cell in one.cells if (record := find.get(cell)) is not None]
    read = read_all(asked_of(rerun), tested, place.folder, device=devices[0], say=say)
    made = parts(rerun, done.stages, find.get, read)
    console.print(title(rerun, dry=dry), style="bold", highlight=False, soft_wrap=True)
    for part in made:
        console.print(terminal(part))
        for told in part.notes:
            say(told)
    records = {record.key: record for record in find.values()}
    if rerun.entry.note:
        say(f"To be read with: {rerun.entry.note}.")
    drawn = sorted(drawing_lines(record.cell for record in records.values()))
    for file in write(rerun, made, records, out, dry=dry, drawn=drawn):
        say(f"written: {file}")
    say(done.told)
    if done.failed:
        raise typer.Exit(1)
