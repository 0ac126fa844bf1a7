"""`steerlib run`: grids of cells and races, computed, listed, exported and shipped; a model of one's own.

Knows how to ask and how to print; everything else is in `steerlib.experiment`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from steerlib.commands.own import Asked, check_asked, run_examples
from steerlib.commands.screen import console, ending, errors, say

if TYPE_CHECKING:
    from steerlib.experiment.cell_records import CellRecord
    from steerlib.experiment.cells import Cell
    from steerlib.experiment.store import Store

#: Where records are kept; those of a model of one's own lie beside its report unless another folder is named.
STORE = Path("build/store")


def run(
    grid: Annotated[
        Path | None,
        typer.Argument(
            help="a grid of cells, such as data/grids/push.yml, or a race, such as data/races/open_loop.yml; with "
            "--profile the name of a table, such as re_control; none for the whole store (--list, --export)"
        ),
    ] = None,
    store: Annotated[Path, typer.Option(help="folder of the records")] = STORE,
    jobs: Annotated[int, typer.Option(min=1, help="cells at a time; cores are divided among them")] = 1,
    device: Annotated[
        list[str] | None,
        typer.Option(help="where to run; repeat it for several GPUs; cuda:0,cuda:1 spreads each plant over both"),
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="show what the store holds of the grid, run nothing")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="count what is missing and how long it may take")] = False,
    weights: Annotated[
        str | None, typer.Option(help="hold weights full, in 8bit or in 4bit (pip install 'steerlib[quantised]')")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="type of parameters: bfloat16, float16 or float32")] = None,
    device_map: Annotated[
        str | None, typer.Option("--device-map", help="auto: spread each plant over all GPUs of this machine")
    ] = None,
    shard: Annotated[str, typer.Option(help="only a part of the cells, such as 2/8: for many machines")] = "1/1",
    export: Annotated[Path | None, typer.Option(help="write the records to a .csv or .parquet file")] = None,
    of: Annotated[
        str | None,
        typer.Option("--profile", help="GRID is a table of this profile on real models: paper, gpu, or your own .yml"),
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option(help="of a table: one of its settings, such as hh-vicuna-7b; repeat it")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="of a race: a plant, or plant/task; repeat it for several")
    ] = None,
    adopt: Annotated[
        str | None, typer.Option(help="of a race: begin with what this profile ships and still counts")
    ] = None,
    again: Annotated[
        str | None, typer.Option(help="compute exactly the cells whose records this profile ships, of a grid or a race")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--ship", help="then write the whole grid's records to data/reference/PROFILE/records")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="compare laws on a model of your own, in place of a grid: shipped name, folder or hub id"),
    ] = None,
    positives: Annotated[Path | None, typer.Option(help="with --model: file of wanted examples, one to a line")] = None,
    negatives: Annotated[Path | None, typer.Option(help="with --model: file of unwanted examples")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="with --model: texts to go on from; by default beginnings of examples")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="with --model: folder for report, steering file and records; build/own/NAME")
    ] = None,
    laws: Annotated[
        str | None, typer.Option(help="with --model: laws between commas, in place of the five that run by themselves")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="with --model: nats for each token that every law may spend; 0.1")
    ] = None,
    scope: Annotated[str | None, typer.Option(help="with --model: tokens that are steered, all or generated")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="with --model: fewer blocks and multipliers")] = False,
) -> None:
    """Compute the cells of a grid, or of a race, that have no record yet; exits 1 if one failed.

    With --model, --positives and --negatives: compare laws on a model and examples of your own.

    Finished cells are kept whatever happens: interrupt it, kill it, run it again.
    """
    # Threads that wait by spinning slow down every other worker; see `grow`.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with ending():
        asked = Asked(model, positives, negatives, prompts, out, laws, budget, scope, quick)
        if asked.given:
            others = {
                "a grid": grid, "--list": listing, "--dry-run": dry_run, "--shard": shard != "1/1", "--export": export,
                "--profile": of, "--setting": setting, "--only": only, "--adopt": adopt, "--again": again,
                "--ship": profile, "--jobs": jobs != 1, "--weights": weights, "--dtype": dtype,
                "--device-map": device_map, "a second --device": len(device or []) > 1,
            }  # fmt: skip
            check_asked(asked, others)
            run_examples(asked, store=None if store == STORE else store, device=device[0] if device else None)
            return
        from steerlib.commands.holding import devices_of, held, memory_lines
        from steerlib.experiment.drawing import drawing_lines
        from steerlib.experiment.grid import GridError, missing, part_of, read_grid, run_grid
        from steerlib.experiment.store import Store

        place = Store(store)
        if grid is None:
            if dry_run or profile is not None or shard != "1/1" or not (listing or export):
                raise GridError(
                    "got no grid, expected one such as data/grids/push.yml. Fix: `steerlib run GRID`; without a grid "
                    "`--list` and `--export FILE` show and write the whole store"
                )
            _whole_store(place, listing=listing, export=export)
            return
        if of is None and setting:
            raise GridError(f"--setting is for tables of a profile, and {grid} is a file. Fix: name --profile")
        if again is None and of is None and _names_a_race(grid):
            from steerlib.commands.races import run_race_file

            if weights or dtype:
                raise GridError(f"--weights and --dtype are for grids and tables, and {grid} is a race. Fix: leave it")
            run_race_file(
                grid, place, jobs=jobs, devices=devices_of(device, device_map), only=only or (), shard=shard,
                dry_run=dry_run, listing=listing, adopted=adopt, profile=profile,
            )  # fmt: skip
            if export is not None:
                say(f"written: {place.export(export)}")
            return
        if only or adopt is not None:
            raise GridError(f"--only and --adopt are for races, and {grid} is a grid. Fix: leave them out; see --shard")
        if again is not None:
            whole = _shipped_cells(grid.stem, again)
        else:
            whole = read_grid(grid) if of is None else _table_cells(str(grid), of, setting or ())
        whole = held(whole, weights=weights, dtype=dtype)
        cells, devices = part_of(whole, shard), devices_of(device, device_map)
        if listing or dry_run:
            lacking = missing(cells, place)
            if listing:
                _show_cells(cells, place)
            say(f"{len(cells) - len(lacking)} of {len(cells)} cells are in {store}{estimate(lacking, place)}")
            for line in [*drawing_lines(cells), *memory_lines(lacking)] if dry_run else ():
                say(line)
            return
        outcome = run_grid(cells, place, jobs=jobs, devices=devices)
        if export is not None:
            say(f"written: {place.export(export)}")
        if profile is not None and not outcome.failed:
            _ship(cells if again is not None else whole, place, grid.stem, profile)
        for why in place.damaged:
            say(f"set aside and computed anew: {why}", to=errors)
        say(
            f"{len(outcome.present)} cells were there, {len(outcome.computed)} computed, "
            f"{len(outcome.elsewhere)} left to another process, {len(outcome.failed)} failed"
        )
        if outcome.failed:
            raise typer.Exit(1)


def _table_cells(name: str, profile: str, settings: Sequence[str]) -> list[Cell]:
    """The cells of a table on real models, as a profile has it."""
    from steerlib.experiment.profile_models import unlocked
    from steerlib.experiment.profile_tables import read_table

    table, seeds = read_table(name, profile=profile)
    cells = table.cells(seeds, settings=settings)
    if loose := unlocked(cells):
        told = f"not locked: {', '.join(loose)}; of each its newest revision, or what the cache has of it, is taken. "
        say(f"{told}`steerlib fetch --profile {profile}` fetches and locks them.", to=errors)
    return cells


def _shipped_cells(name: str, profile: str) -> list[Cell]:
    """The cells whose records a profile ships, those included whose records no longer count."""
    from steerlib.experiment.shipped import shipped, shipped_path

    found = shipped(shipped_path(name, profile=profile))
    return [*(record.cell for record in found.records), *(stale.cell for stale in found.stale if stale.cell)]


def _names_a_race(file: Path) -> bool:
    """Whether a file is a race; one that cannot be read is left to whoever reads grids, who says what is wrong."""
    from steerlib.experiment.race_plan import RacePlanError, is_race
    from steerlib.experiment.yaml_files import read_yaml

    try:
        return is_race(read_yaml(file, wrong=RacePlanError, expected="a grid or a race"))
    except (OSError, RacePlanError):
        return False


def _ship(cells: list[Cell], place: Store, name: str, profile: str) -> None:
    from steerlib.experiment.shipped import ship, shipped_path

    file = ship(place, cells, shipped_path(name, profile=profile))
    size = file.stat().st_size
    each = f"{1000 * size / len(cells) / 1e6:.2f} MB per 1,000 cells"
    say(f"shipped: {file}, {size / 1e3:.0f} kB, {each}")


def _whole_store(place: Store, *, listing: bool, export: Path | None) -> None:
    if not place.keys():
        raise FileNotFoundError(
            f"no records in {place.folder}. Fix: `steerlib run GRID` computes some, or name --store"
        )
    if listing:
        _show([(record.cell, record) for record in place.records()])
    if export is not None:
        say(f"written: {place.export(export)}")
    for why in place.damaged:
        say(f"set aside: {why}", to=errors)


def _show_cells(cells: list[Cell], place: Store) -> None:
    from steerlib.experiment.keys import keys_of

    _show([(cell, place.get(key)) for cell, key in zip(cells, keys_of(cells), strict=True)])


def _show(rows: list[tuple[Cell, CellRecord | None]]) -> None:
    from steerlib.experiment.showing import interval
    from steerlib.experiment.unjudged import gaps

    table = Table(title=f"{len(rows)} cells", title_justify="left")
    gapped = any(record is not None and record.missing for _, record in rows)
    for column in ("cell", "wanted", "intact", "combined", *(["not judged"] if gapped else []), "seconds"):
        table.add_column(column, overflow="fold")
    for cell, record in rows:
        found = record.metrics if record else {}
        metrics = [found.get(name) for name in ("wanted", "intact", "combined")]
        shown = [interval(m, 3) if m else "-" for m in metrics]
        shown += [str(gaps([record])) if record else "-"] if gapped else []
        table.add_row(cell.title, *shown, f"{record.seconds:.1f}" if record else "-")
    console.print(table)


def estimate(lacking: list[Cell], place: Store) -> str:
    """How long the missing cells may take, from records of the same kind of scoring; "" where there are none."""
    if not lacking:
        return ""
    times: dict[str, list[float]] = {}
    for record in place.records():
        times.setdefault(record.cell.kind, []).append(record.seconds + record.fit_seconds)
    if any(cell.kind not in times for cell in lacking):
        return f"; {len(lacking)} are missing"
    mean = {kind: sum(found) / len(found) for kind, found in times.items()}
    left = sum(mean[cell.kind] for cell in lacking) / 60
    return f"; {len(lacking)} are missing, about {left:.1f} minutes on one core at the pace of the others"
