"""What all commands print on, and how one ends that cannot do what it was asked.

Knows the two streams. Knows nothing about any command.
"""

from __future__ import annotations

import typer
from rich.console import Console
from rich.markup import escape

console = Console()
errors = Console(stderr=True)


def failed(error: Exception) -> typer.Exit:
    """Say what was wrong; raise what this returns."""
    errors.print("[bold red]error[/]", escape(str(error)), highlight=False, soft_wrap=True)
    return typer.Exit(2)
