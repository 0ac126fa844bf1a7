"""Laws at several sites of one plant, under one strength.

One law for each of several blocks is how transport maps, per-head pushes and conditions with a behaviour are used.
Knows how parts are fitted together, attached together and kept in one file. Knows nothing about what a part computes.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from steerlib.actuator import Actuator, Point, Scope, Site, Transform
from steerlib.errors import LawError
from steerlib.laws.base import Contrast, Law, Source, one_of, read_law
from steerlib.laws.sources import OneClassPushed, OnePass, at_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from steerlib.plant import Plant

Pushed = Literal["both", "negative"]

FORMAT = "steerlib-stack/1"
#: Seeds of neighbouring sites lie so far apart, so that no two (seed, site) of an experiment draw alike.
SEED_STEP = 1_000_003


class Stack(nn.Module):
    """Laws at several sites, attached and scaled as one.

    Parts of one site act in the order in which they are given; parts of different sites in order of depth.

    Args:
        laws: the parts, each with its own buffers.
        sites: where each part is to be fitted and to act, blocks or sites; may be left out for fitted parts, whose
            headers know.
        sequential: fit in order of depth, each part on states that the earlier parts have changed already; otherwise
            all parts are fitted on the unsteered plant, from one pass over the texts.
        acting: scope of the earlier parts during a sequential fit.
        pushed: whose texts the earlier parts push during a sequential fit. "both" classes is what the code of
            activation transport does (apple/ml-act, `incremental: incr`): one pass over all texts with the hooks of the
            earlier modules in place. The target class then moves as well, past where it was, and each part is measured
            towards that: what reaches the last site need not have the mean of the target, nor of anything that the
            unsteered plant computes. With "negative" the target is measured on the unsteered plant, and a stack of
            shifts at full strength brings the mean of the source at the last site to that of the target.
        strength: multiplier of every part's input.

    Attributes:
        parts: the laws.
        sites: where they act, as given.

    Raises:
        LawError: if there are not as many sites as laws, or `pushed` names no classes.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        laws: Sequence[Law] = (),
        *,
        sites: Sequence[Site | int | Sequence[Any]] = (),
        sequential: bool = False,
        acting: str = "all",
        pushed: Pushed = "both",
        strength: float = 1.0,
    ) -> None:
        """Hold the parts."""
        super().__init__()
        self.sites = tuple(_site(place) for place in sites)
        if laws and sites and len(laws) != len(sites):
            raise LawError(f"Stack: got {len(laws)} laws and {len(sites)} sites, expected one site for each law.")
        self.parts = nn.ModuleList(laws)
        self.sequential, self.acting = sequential, Scope.of(acting).name
        self.pushed: Pushed = one_of("pushed", pushed, Pushed)
        self.at(strength)

    @classmethod
    def across(
        cls,
        kind: type[Law],
        sites: Sequence[Site | int],
        *,
        options: dict[str, Any] | None = None,
        sequential: bool = False,
        acting: str = "all",
        pushed: Pushed = "both",
    ) -> Stack:
        """One law of a kind at each site; kinds that draw by a seed draw anew at each.

        Args:
            kind: class of the parts.
            sites: where.
            options: arguments of the class.
            sequential: see the class.
            acting: see the class.
            pushed: see the class.

        Raises:
            TypeError: if the class does not take the options.
        """
        given, laws = options or {}, []
        for number in range(len(sites)):
            own = dict(given)
            if "seed" in inspect.signature(kind).parameters:
                own["seed"] = int(given.get("seed", 0)) + SEED_STEP * number
            laws.append(kind(**own))
        return Stack(laws, sites=sites, sequential=sequential, acting=acting, pushed=pushed)

    def __iter__(self) -> Iterator[Law]:
        """The parts."""
        return iter(self.parts)  # type: ignore[arg-type]

    def __len__(self) -> int:
        """Number of parts."""
        return len(self.parts)

    @property
    def strength(self) -> Tensor:
        """The multiplier that all parts share."""
        return next(iter(self)).strength if len(self) else torch.tensor(self._strength)

    def at(self, strength: float) -> Self:
        """Set the strength of every part in place, compiled code included; return the stack.

        Raises:
            LawError: if the strength is not a finite number.
        """
        self._strength = float(Law().at(strength).strength)
        for part in self:
            part.at(strength)
        return self

    # Fitting

    def fit(self, contrasts: Sequence[Contrast]) -> Self:
        """Fit each part on its own contrast; return the stack.

        Raises:
            LawError: if there are not as many contrasts as parts.
        """
        if len(contrasts) != len(self):
            raise LawError(f"Stack: got {len(contrasts)} contrasts for {len(self)} laws, expected one for each.")
        for part, contrast in zip(self, contrasts, strict=True):
            part.fit(contrast)
        return self

    def fit_from(self, source: Source) -> Self:
        """Fit every part at its own site, all from one pass or in order of depth; see `sequential`.

        During a sequential fit the earlier parts act at strength 1, whatever the strength of the stack.

        Raises:
            LawError: if the sites are not known, there is no part, or the earlier parts are to push one class only and
                a part asks for more than contrasts.
        """
        if not len(self) or len(self.sites) != len(self):
            raise LawError(f"Stack: got {len(self)} laws and {len(self.sites)} sites. Fix: Stack(laws, sites=...).")
        sites = [site.resolve(source.plant.depth) for site in self.sites]
        shared = OnePass(source, sites)
        if not self.sequential:
            for part, site in zip(self, sites, strict=True):
                part.fit_from(at_site(shared, site))
            return self
        one_class = OneClassPushed(shared, source) if self.pushed == "negative" else None
        with _at_full_strength(self), ExitStack() as acting:
            for number in sorted(range(len(sites)), key=lambda i: sites[i].order):
                part, site = self.parts[number], sites[number]
                part.fit_from(at_site(one_class or source, site))  # type: ignore[operator]
                part.to(next(source.plant.blocks[site.layer].parameters()).device)
                pushing = Actuator(source.plant.wiring, [(site, part, Scope.of(self.acting))])  # type: ignore[list-item]
                if one_class is None:
                    acting.enter_context(pushing)
                else:
                    one_class.earlier.append(pushing)
        return self

    # Use

    def entries(
        self, plant: Plant, *, layer: int | None = None, point: Point | None = None
    ) -> list[tuple[Site, Transform, str]]:
        """Site, law and default scope of every part, once it is known that they belong there; see `Plant.under`.

        Raises:
            LawError: if there is no part, a layer or point is given, or a part was fitted elsewhere.
        """
        if layer is not None or point is not None:
            raise LawError(
                f"{type(self).__name__}: acts at several sites; got layer={layer}, point={point}. Fix: leave both out."
            )
        if not len(self):
            raise LawError(f"{type(self).__name__}: holds no law: it is not fitted. Fix: fit it.")
        found = []
        for number, part in enumerate(self):
            site = self.sites[number] if self.sites else None
            known = part.check_use(plant, layer=site and site.layer, point=site and site.point)
            found.append((known, part, part.header.scope if part.header is not None else "generated"))
        return found

    def check_use(self, plant: Plant) -> list[Site]:
        """The sites of all parts on a plant, once it is known that the laws belong there; see `entries`."""
        return [site for site, _, _ in self.entries(plant)]

    # Files

    def options(self) -> dict[str, Any]:
        """Arguments of the constructor besides the laws, so that a loaded stack can be fitted again as it was."""
        return {
            "sites": [[site.layer, site.point] for site in self.sites],
            "sequential": self.sequential,
            "acting": self.acting,
            "pushed": self.pushed,
        }

    def save(self, path: str | Path) -> Path:
        """Write all parts to one safetensors file, with the header of each in the file's metadata."""
        target = Path(path)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.named_buffers()}
        parts = [
            {
                "law": f"{type(part).__module__}.{type(part).__qualname__}",
                "version": part.version,
                "options": part.options(),
                "header": dataclasses.asdict(part.header) if part.header is not None else None,
            }
            for part in self
        ]
        meta = {
            "format": FORMAT,
            "law": type(self).__name__,
            "version": str(self.version),
            "layers": "from 0",
            "options": json.dumps(self.options()),
            "parts": json.dumps(parts),
        }
        save_file(tensors, target, metadata=meta)
        return target

    @classmethod
    def load(cls, path: str | Path, *, classes: Sequence[type[Law]] = ()) -> Self:
        """Read a stack that `save` wrote.

        Args:
            path: the file.
            classes: laws that are not part of steerlib and may be in the file.

        Raises:
            LawError: if the file is missing, is not a stack, or holds another one, or a law or version that this
                installation does not have.
        """
        meta, tensors = read_law(path, FORMAT, cls.__name__, cls.version)
        made = cls(**json.loads(meta["options"]))
        parts = []
        for number, kept in enumerate(json.loads(meta["parts"])):
            prefix = f"parts.{number}."
            own = {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}
            kind = _class_of(kept, path, classes)
            parts.append(kind._restore(own, kept["options"], kept["header"]))
        made.parts = nn.ModuleList(parts)
        for name, tensor in tensors.items():
            made.register_buffer(name, tensor)
        made._strength = float(made.strength)
        made._linked()
        return made

    def _linked(self) -> None:
        """Called when parts have been read, for stacks whose parts know each other."""

    def __repr__(self) -> str:
        """Name, strength and parts."""
        return f"{type(self).__name__}(strength={float(self.strength):.3g}, {', '.join(map(repr, self))})"


def _site(place: Site | int | Sequence[Any]) -> Site:
    if isinstance(place, Site):
        return place
    return Site(place) if isinstance(place, int) else Site(*place)


def _class_of(kept: dict[str, Any], path: str | Path, classes: Sequence[type[Law]]) -> type[Law]:
    """The class of a part: one of steerlib's, or one that the caller names."""
    place = kept["law"]
    known = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in classes}
    if place not in known and not place.startswith("steerlib.laws."):
        raise LawError(f"{path}: holds the law {place}, which is not steerlib's. Fix: load(path, classes=[...]).")
    try:
        module, _, name = place.rpartition(".")
        kind = known.get(place) or getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise LawError(f"{path}: holds the law {place}, which this steerlib does not have.") from error
    if not (isinstance(kind, type) and issubclass(kind, Law)) or kept["version"] != kind.version:
        raise LawError(
            f"{path}: holds {place} version {kept['version']}, expected a law of version "
            f"{getattr(kind, 'version', None)}. Fix: fit it again."
        )
    return kind


@contextmanager
def _at_full_strength(stack: Stack) -> Iterator[None]:
    before = float(stack.strength)
    stack.at(1.0)
    try:
        yield
    finally:
        stack.at(before)
