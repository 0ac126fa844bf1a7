"""`steerlib fetch`: public data sets.

Knows how to ask and how to print; everything else is in `steerlib.data`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from steerlib.commands.screen import console, errors, failed
from steerlib.errors import SteerlibError


def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="data sets; see --list")] = None,
    profile: Annotated[str | None, typer.Option(help="fetch what a profile names")] = None,
    to: Annotated[Path | None, typer.Option(help="data folder; by default the user's cache")] = None,
    lock: Annotated[Path | None, typer.Option(help="fetch lock; by default fetch.lock.json of the clone")] = None,
    listing: Annotated[bool, typer.Option("--list", help="show the data sets and where they live")] = False,
) -> None:
    """Download public data sets and check them against the fetch lock; interrupted downloads go on."""
    from steerlib.data.fetching import fetch as fetch_source
    from steerlib.data.sources import SOURCES

    if listing:
        table = Table(title=f"{len(SOURCES)} data sets", title_justify="left")
        for column in ("name", "what", "licence", "home"):
            table.add_column(column, overflow="fold")
        for known in SOURCES.values():
            table.add_row(known.name, known.title, known.licence, ", ".join(home.place for home in known.homes))
        console.print(table)
        return
    try:
        wanted = [*(names or []), *(_profile_data(profile) if profile else [])]
        if not wanted:
            raise ValueError("got no data set; expected names (see steerlib fetch --list) or --profile")
        for name in dict.fromkeys(wanted):
            for found in fetch_source(name, folder=to, lock=lock, say=lambda text: console.print(text, soft_wrap=True)):
                state = "downloaded, first seen" if found.first else "downloaded" if found.downloaded else "was there"
                console.print(f"{found.path}: {state}, revision {found.revision[:12]}", soft_wrap=True)
    except KeyboardInterrupt as stopped:
        errors.print("stopped; what has arrived is kept, the same command goes on", soft_wrap=True)
        raise typer.Exit(130) from stopped
    except (SteerlibError, ValueError, OSError) as error:
        raise failed(error) from error


def _profile_data(name: str) -> list[str]:
    """Data sets that a profile of this clone names."""
    from steerlib.files import project_root
    from steerlib.workflow.errors import ProfileError
    from steerlib.workflow.profiles import load_profile

    root = project_root()
    if root is None:
        raise ValueError("--profile needs a clone, where data/profiles is; name the data sets instead")
    try:
        found = load_profile(root, name).datasets
    except ProfileError as error:
        raise ValueError(str(error)) from error
    if not found:
        raise ValueError(f"profile {name!r} names no data set: there is nothing to fetch")
    return found
