"""What a table needs before it can be made: models, data sets, judges, keys; what is here, and how much work is left.

Knows folders, the hub's cache and the homes of data sets. Downloads nothing and loads no model.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from huggingface_hub import constants

from steerlib.data.reading import DataError
from steerlib.errors import SteerlibError
from steerlib.experiment.cells import Cell
from steerlib.experiment.keys import folder_of
from steerlib.files import is_place
from steerlib.hub.fetching import absent
from steerlib.hub.located import locked, stand_in
from steerlib.hub.remote import hub_cache, snapshot_of
from steerlib.registry import task_class

if TYPE_CHECKING:
    from steerlib.experiment.rerun import Rerun

GATED = "a gated model also needs HF_TOKEN and its licence accepted on the hub"
State = Literal["here", "in the hub's cache", "to be fetched", "absent", "needs a key", "ready"]


@dataclass(frozen=True)
class Need:
    """Something that must be there.

    Attributes:
        what: "plant", "judge", "data" or "library".
        name: a hub id, a folder, a model behind an API, a task, or a package.
        state: where it is.
        why: what to do about it; "" where nothing.
    """

    what: str
    name: str
    state: State
    why: str = ""

    @property
    def present(self) -> bool:
        """Whether it is on this machine, or needs not be."""
        return self.state in ("here", "in the hub's cache", "ready")


def needs(cells: Iterable[Cell]) -> list[Need]:
    """What cells need, each thing once: plants, judges, then data, and what rounds weights."""
    cells = list(cells)
    found: dict[tuple[str, str], Need] = {}
    for cell in cells:
        found.setdefault(("plant", cell.plant), model_need("plant", cell.plant))
    for cell in cells:
        for spec in cell.judges.values():
            if spec.local:
                found.setdefault(("judge", spec.model), model_need(f"judge ({spec.kind})", spec.model))
            elif spec.kind != "oracle":
                found.setdefault(("judge", spec.model), _api(spec.model, spec.options))
    for cell in cells:
        for name, options in cell.tasks:
            read = {key: value for key, value in options.items() if key not in ("settings", "fold", "person")}
            if (name, str(read)) not in found:
                found[name, str(read)] = _data(name, dict(options), read)
    held = [cell.precision for cell in cells] + [spec.precision for cell in cells for spec in cell.judges.values()]
    if any(one.weights != "full" for one in held):
        there = importlib.util.find_spec("bitsandbytes") is not None
        why = "" if there else "pip install 'steerlib[quantised]'; or weights in full, precision.weights in the profile"
        found["library", "bitsandbytes"] = Need("library", "bitsandbytes", "here" if there else "absent", why)
    return list(found.values())


def model_need(what: str, name: str) -> Need:
    """A model, and where it is: in a folder, also one that stands for an id, or in the hub's cache as it is locked."""
    if folder_of(name) is not None or stand_in(name) is not None or Path(name).expanduser().is_dir():
        return Need(what, name, "here")
    if is_place(name):
        return Need(what, name, "absent", "no such folder")
    return Need(what, name, "in the hub's cache") if _cached(name) else Need(what, name, "to be fetched", GATED)


def _cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    entry = locked(name)
    if entry is None:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    return not absent(entry, snapshot_of(name, entry.revision, hub_cache()))


def _api(model: str, options: Mapping[str, object]) -> Need:
    key = options.get("key_variable", "STEERLIB_JUDGE_KEY")
    if options.get("offline") or key is None or os.environ.get(str(key)):
        return Need("judge (API)", model, "ready")
    return Need("judge (API)", model, "needs a key", f"set {key}, or record its answers in {options.get('journal')}")


def _data(name: str, options: Mapping[str, object], read: Mapping[str, object]) -> Need:
    told = " ".join([name, *(str(value) for value in read.values() if isinstance(value, str))])
    try:
        task_class(name).data_files(options)
    except (DataError, OSError) as error:
        return Need("data", told, "absent", str(error))
    except (SteerlibError, TypeError, ValueError) as error:
        return Need("data", told, "absent", f"the task does not take its options: {error}")
    return Need("data", told, "here")


def refuse_in_vain(rerun: Rerun) -> None:
    """Refuse a rerun that may fetch nothing and has all it needs for none of its settings: each cell would fail.

    Raises:
        SteerlibError: HF_HUB_OFFLINE is set; names what is lacking, and what to do.
    """
    if not constants.HF_HUB_OFFLINE:
        return
    lacking: dict[str, str] = {}
    for setting in rerun.settings:
        cells = [*(cell for _, _, cell in rerun.trials(setting)), *begun(rerun, setting)]
        gone = [need for need in needs(cells) if need.state in ("to be fetched", "absent")]
        if not gone:
            return
        lacking |= {need.name.partition(" ")[0]: need.why for need in gone}
    names = ", ".join(lacking)
    raise SteerlibError(
        f"{rerun.paper}, {rerun.entry.printed}: HF_HUB_OFFLINE is set, and no setting has all that it needs: {names} "
        f"{'is' if len(lacking) == 1 else 'are'} not on this machine. Fix: unset it and run `steerlib fetch --profile "
        f"{rerun.profile} --table {rerun.entry.table}`, or put folders under STEERLIB_MODELS and STEERLIB_DATA"
    )


def begun(rerun: Rerun, setting: str) -> list[Cell]:
    """Cells of a setting that are tested as the profile begins: they have the judges that validation has not."""
    from steerlib.experiment.rerun import Choice

    choices = {row: Choice(values, False, {}, 0) for row, values, _ in rerun.trials(setting)}
    return [cell for _, cell in rerun.tests(setting, choices)]


@dataclass(frozen=True)
class Work:
    """How much there is to do.

    Attributes:
        cells: measurements.
        answers: to be sampled and judged, where the number is known.
        fits: laws and scorers to be fitted, each once for the cells that share it.
        open: cells that take all prompts of their data set.
    """

    cells: int
    answers: int
    fits: int
    open: int

    def __str__(self) -> str:
        """For example "312 cells: at least 31,200 answers to sample and judge, 96 fits"."""
        more = f", and {self.open} cells of all prompts of their data set" if self.open else ""
        return f"{self.cells} cells: {self.answers:,} answers to sample and judge{more}; {self.fits} fits"


def work(cells: Sequence[Cell]) -> Work:
    """Count what cells ask for."""
    answers = sum(cell.limit or 0 for cell in cells)
    laws = {
        (cell.plant, str(cell.tasks), cell.law.model_copy(update={"strength": 1.0}))
        for cell in cells
        if cell.law is not None
    }
    scorers = {
        (cell.plant, str(cell.tasks), str(cell.decoder.scorer))
        for cell in cells
        if cell.decoder is not None and cell.decoder.scorer is not None and cell.decoder.scorer.trained
    }
    return Work(len(cells), answers, len(laws) + len(scorers), sum(cell.limit is None for cell in cells))
