"""What an experiment writes down: strict, frozen data whose text decides keys.

Knows how data become one text, how that text is kept so that damage is noticed, and how a field that came later leaves
older texts as they were. Knows nothing about what is written, or where it lies.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    #: Fields that came after the first records: left out at their default, so that the keys of older cells still hold.
    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        out = handler(self)
        for name in self.later:
            if getattr(self, name) == type(self).model_fields[name].default:
                out.pop(name, None)
        return out

    def __hash__(self) -> int:
        """Hash of the content; options are dictionaries, which have none of their own."""
        return hash(tuple(map(_hashable, self.__dict__.values())))


def _hashable(value: Any) -> Any:
    """What stands for a value in a hash: much less work than its text; as there, 1 and 1.0 are not the same."""
    if isinstance(value, dict):
        return frozenset((name, _hashable(inner)) for name, inner in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    return (type(value), value) if isinstance(value, int | float) else value


def canonical(data: BaseModel | dict[str, Any]) -> str:
    """JSON with sorted keys and no spaces: equal data, equal text."""
    raw = data.model_dump(mode="json") if isinstance(data, BaseModel) else data
    return json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sealed(data: BaseModel | dict[str, Any]) -> str:
    """Data as the text of a file: the checksum of the second line, and on that line the data, see `canonical`."""
    body = canonical(data)
    return f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}\n"


def unsealed(content: bytes) -> bytes | None:
    """The data of such a file, as JSON; None if it is truncated or was altered. Nothing is parsed."""
    head, _, rest = content.partition(b"\n")
    body = rest[:-1]
    whole = rest.endswith(b"\n") and hashlib.sha256(body).hexdigest().encode() == head
    return body if whole else None
