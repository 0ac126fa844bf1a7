"""`Page`: the notebook's pen. Records values, figures and checked claims, and draws the provenance footer.

Knows how a notebook shows things so that they survive in the built book (alt text, glue); knows nothing of
models or of how the book is built. Prose cites a recorded value with MyST's glue role:
{glue:text}`truth.txi` gives "0.57 [0.55, 0.59]", and the same name with `.value` added gives "0.57". From another
page the role wants the file and a format: {glue:text}`../notebooks/11_difference_of_means.ipynb::truth.txi:s`.
"""

from __future__ import annotations

import base64
import html
import io
import math
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, SupportsFloat, TypeVar

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from steerlib.experiment.claims import Claim, ClaimError, Verdict, load_claims, verdict
from steerlib.experiment.provenance import UNKNOWN, provenance
from steerlib.experiment.records import Check, PageRecord, Provenance, Value, write_record
from steerlib.experiment.structure import figure_record
from steerlib.files import project_root

SVG_LIMIT = 200_000  # bytes; above it (many points) a PNG is smaller and draws faster
PNG_DPI = 160
SHORTEST_ALT = 40


class PlantLike(Protocol):
    """What the footer needs to know of a plant."""

    name: str
    weight_hash: str


P = TypeVar("P", bound=PlantLike)


class Page:
    """One executed page of the book.

    Args:
        name: stem of the notebook, such as "11_difference_of_means".
        profile: name of the profile, a papermill parameter.
        plant: name of the plant, a papermill parameter; the loaded plant is announced with `uses`.
        seeds: the seeds of the run, a papermill parameter.

    The records go to the file named by STEERLIB_RECORDS (set by the pipeline), otherwise to
    `build/adhoc/records/<name>.json`.
    """

    def __init__(self, name: str, *, profile: str, plant: str, seeds: int | Sequence[int]) -> None:
        self._path, self._strict = _records_path(name)
        self._start = time.monotonic()
        self._device, self._dtype, self._weights = "cpu", UNKNOWN, UNKNOWN
        self.record_file = PageRecord(
            page=name,
            profile=profile,
            plant=plant,
            seeds=(seeds,) if isinstance(seeds, int) else tuple(seeds),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_record(self._path, self.record_file)
        _draw_frames_as_tables()

    def uses(self, plant: P) -> P:
        """Announce the loaded plant, so that the footer can say its weights, device and number type; returns it."""
        self._weights = plant.weight_hash
        self._device = str(getattr(plant, "device", "cpu"))
        self._dtype = str(getattr(plant, "dtype", UNKNOWN)).removeprefix("torch.")
        return plant

    def record(
        self,
        name: str,
        value: SupportsFloat,
        *,
        low: SupportsFloat | None = None,
        high: SupportsFloat | None = None,
        n: int | None = None,
        unit: str = "",
        note: str = "",
        digits: int | None = None,
    ) -> None:
        """Record a number and glue it under `name` (with interval and unit) and `name.value` (bare).

        Args:
            name: unique on the page, dotted, such as "truth.txi.dom".
            value: the number, or anything with one (a 0-d tensor).
            low: lower end of its interval; give both ends or none.
            high: upper end.
            n: number of observations behind it.
            unit: printed after it.
            note: how it was made, if that is not obvious.
            digits: decimals to print; by default as many as the interval's width deserves.

        Raises:
            ValueError: not finite, half an interval, or a name already used.
        """
        if (low is None) != (high is None):
            raise ValueError(f"record {name!r}: got one end of an interval, expected both or none")
        number = float(value)
        ends = None if low is None or high is None else (float(low), float(high))
        if ends and not ends[0] <= number <= ends[1]:
            raise ValueError(f"record {name!r}: got {number} with interval {ends}, expected low <= value <= high")
        exact = isinstance(value, int) and ends is None
        bare, shown = _shown(number, ends, digits=digits, exact=exact)
        shown += f" {unit}" if unit else ""
        low_end, high_end = ends or (None, None)
        entry = Value(value=number, low=low_end, high=high_end, n=n, unit=unit, note=note, shown=shown)
        self._add("values", name, entry)
        _glue(name, shown)
        _glue(f"{name}.value", bare)

    def text(self, name: str, text: str) -> None:
        """Record a short text (a model's answer, a name) and glue it under `name`."""
        self._add("texts", name, text)
        _glue(name, text)

    def figure(self, name: str, figure: Figure, *, alt: str) -> None:
        """Show a figure with its alt text, record its structure, and close it. One figure a cell.

        Args:
            name: unique on the page.
            figure: a matplotlib figure (of a seaborn grid: its `.figure`).
            alt: one or more sentences that name the quantities and the finding.

        Raises:
            ValueError: alt text too short to do that, or a name already used.
        """
        if not isinstance(figure, Figure):
            raise TypeError(
                f"figure {name!r}: got {type(figure).__name__}, expected a matplotlib Figure (or grid.figure)"
            )
        alt = " ".join(alt.split())
        if len(alt) < SHORTEST_ALT or not alt.endswith("."):
            raise ValueError(
                f"figure {name!r}: got alt text {alt!r}, expected a sentence of at least {SHORTEST_ALT} characters, "
                "ending in a full stop, that names the quantities and the finding"
            )
        self._add("figures", name, figure_record(figure, alt=alt))
        mime, data, size = _render(figure)
        plt.close(figure)
        # The pipeline copies `alt` to where MyST-NB looks for it (see workflow/execute.py).
        _display({mime: data, "text/plain": alt}, {mime: {"alt": alt, **size}})

    def check(
        self,
        claim_id: str,
        *,
        estimate: SupportsFloat,
        low: SupportsFloat | None = None,
        high: SupportsFloat | None = None,
        n: int | None = None,
        note: str = "",
    ) -> Verdict:
        """Check a claim of `data/claims` with our measurement; glues the verdict under `<claim_id>.verdict`.

        See `claims.verdict` for what `estimate`, `low` and `high` mean for each kind.

        Raises:
            ClaimError: unknown claim, one that belongs to another page, or quantities of another kind.
        """
        claim = self._claim(claim_id)
        ends = (None if low is None else float(low), None if high is None else float(high))
        found = verdict(claim, estimate=float(estimate), low=ends[0], high=ends[1])
        entry = Check(
            claim=claim_id, verdict=found.value, estimate=float(estimate), low=ends[0], high=ends[1], n=n, note=note
        )
        self._add("checks", claim_id, entry)
        _glue(f"{claim_id}.verdict", found.value)
        return found

    def cannot_check(self, claim_id: str, *, why: str) -> Verdict:
        """Say that a claim cannot be checked with this plant or profile, and why."""
        self._claim(claim_id)
        entry = Check(claim=claim_id, verdict=Verdict.CANNOT_CHECK.value, note=why)
        self._add("checks", claim_id, entry)
        _glue(f"{claim_id}.verdict", Verdict.CANNOT_CHECK.value)
        return Verdict.CANNOT_CHECK

    def footer(self) -> None:
        """Draw the claims checked here and the provenance of the page, and mark its records as finished."""
        here = provenance(device=self._device, dtype=self._dtype, weights=self._weights)
        wall = round(time.monotonic() - self._start, 1)
        self._update({"provenance": here, "wall_s": wall, "finished": True})
        record = self.record_file
        markup = _claims_table(record) + _provenance_table(record, here)
        _display({"text/html": markup, "text/plain": f"{record.page} at commit {here.commit}"}, {})

    def _claim(self, claim_id: str) -> Claim:
        claims = load_claims()
        if claim_id not in claims:
            mine = sorted(c.id for c in claims.values() if c.page == self.record_file.page) or ["none"]
            raise ClaimError(f"got claim {claim_id!r}, expected one of this page's in data/claims: {', '.join(mine)}")
        claim = claims[claim_id]
        if claim.page != self.record_file.page:
            raise ClaimError(f"{claim_id} is checked in {claim.page}, not in {self.record_file.page}: see data/claims")
        return claim

    def _add(self, kind: str, name: str, entry: object) -> None:
        held: dict[str, Any] = dict(getattr(self.record_file, kind))
        if name in held and self._strict:
            raise ValueError(f"{name!r} is already among the {kind} of {self.record_file.page}; names are unique")
        self._update({kind: {**held, name: entry}})

    def _update(self, change: dict[str, object]) -> None:
        self.record_file = self.record_file.model_copy(update=change)
        write_record(self._path, self.record_file)


def _records_path(name: str) -> tuple[Path, bool]:
    """Where records go, and whether this is the pipeline (a cell run twice by hand may replace its records)."""
    if chosen := os.environ.get("STEERLIB_RECORDS"):
        return Path(chosen), True
    return (project_root() or Path.cwd()) / "build" / "adhoc" / "records" / f"{name}.json", False


def _shown(value: float, ends: tuple[float, float] | None, *, digits: int | None, exact: bool) -> tuple[str, str]:
    """The bare value and the value with its interval, as text with one number of decimals."""
    if exact:
        return f"{value:.0f}", f"{value:.0f}"
    if digits is None:
        width = (ends[1] - ends[0]) / 2 if ends else 0.0
        if width > 0:  # as many decimals as show the half-width to one digit, two where it starts with a 1
            exponent = math.floor(math.log10(width))
            digits = max(0, -exponent + (1 if width < 1.5 * 10.0**exponent else 0))
        elif value == 0 or 1e-4 <= abs(value) < 1e6:
            digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
        else:
            return f"{value:.2e}", f"{value:.2e}"
    bare = f"{value:z.{digits}f}"  # z: a small negative number is printed as 0.00, not as -0.00
    return bare, bare if ends is None else f"{bare} [{ends[0]:z.{digits}f}, {ends[1]:z.{digits}f}]"


def _render(figure: Figure) -> tuple[str, str, dict[str, int]]:
    """A figure as (mime type, data, size metadata): SVG, which is crisp at any width, or PNG when that is heavy."""
    style: Any = {"svg.hashsalt": "steerlib", "svg.fonttype": "path"}  # equal figures give equal files
    look: dict[str, Any] = {"bbox_inches": "tight", "facecolor": "white"}  # a white card, also in dark mode
    with plt.rc_context(style):
        vector = io.StringIO()
        figure.savefig(vector, format="svg", metadata={"Date": None}, **look)
    if len(vector.getvalue().encode()) <= SVG_LIMIT:
        return "image/svg+xml", vector.getvalue(), {}
    raster = io.BytesIO()
    figure.savefig(raster, format="png", dpi=PNG_DPI, **look)
    width = int.from_bytes(raster.getvalue()[16:20], "big")  # of the PNG header
    return "image/png", base64.b64encode(raster.getvalue()).decode(), {"width": round(width * 96 / PNG_DPI)}


def _display(data: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Show a MIME bundle in the notebook; nothing outside one."""
    from IPython.core.getipython import get_ipython  # the library works without IPython

    if get_ipython() is not None:
        from IPython.display import display

        display(data, raw=True, metadata=metadata)


def _glue(name: str, text: str) -> None:
    """Store a text under a name where MyST-NB's glue roles find it; shows nothing."""
    prefix = "application/papermill.record/"
    _display({f"{prefix}text/plain": repr(text)}, {"scrapbook": {"name": name, "mime_prefix": prefix}})


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "steerlib-table") -> str:
    """An HTML table whose first column heads its rows; `dataframe` is the class that both theme modes style."""
    named = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    top = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f'<table class="dataframe {kind}">{named}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def _draw_frames_as_tables() -> None:
    """Make this notebook show data frames as the house's tables: one row of heads, the index as the first column."""
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    if shell is not None:
        formatter = shell.display_formatter.formatters["text/html"]
        for module in ("pandas", "pandas.core.frame"):  # where pandas 3, and older ones, say the class is from
            formatter.for_type_by_name(module, "DataFrame", frame_table)


def frame_table(frame: Any) -> str:
    """A pandas data frame as a house table; an index without a name that only counts rows is left out."""
    named = frame.index.name is not None or frame.index.dtype == object or frame.index.dtype == "str"
    shown = frame.reset_index(names=frame.index.name or "") if named else frame
    rows = [[_cell(value) for value in row] for row in shown.itertuples(index=False)]
    return _table("", [str(name) for name in shown.columns], rows, kind="steerlib-frame")


def _cell(value: object) -> str:
    """A value as pandas would print it in a frame, text as it is."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _claims_table(record: PageRecord) -> str:
    if not record.checks:
        return ""
    claims = load_claims()
    rows = []
    for name, check in sorted(record.checks.items()):
        claim = claims[name]
        ours = "" if check.estimate is None else f"{check.estimate:.3g}"
        ours += "" if check.low is None else f" [{check.low:.3g}, {check.high:.3g}]"
        ours += f", n = {check.n}" if check.n is not None else ""
        rows.append((name, f"{claim.says} ({claim.where})", check.verdict, f"{ours} {check.note}".strip()))
    return _table("Claims checked on this page", ("claim", "the paper says", "verdict", "ours"), rows)


def _provenance_table(record: PageRecord, here: Provenance) -> str:
    state = {True: " with uncommitted changes", False: "", None: ""}[here.dirty]
    rows = [
        ("commit", here.commit[:12] + state),
        ("lock", here.lock),
        ("profile", record.profile),
        ("plant", f"{record.plant}, weights {here.weights[:16]}"),
        ("seeds", ", ".join(map(str, record.seeds))),
        ("device", f"{here.device}, {here.dtype}, {here.platform}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in here.versions.items())),
        ("executed", f"{record.started}, {record.wall_s} s"),
    ]
    return _table("Provenance of this page", ("what", "value"), rows)
