"""Words from a file of one's own, of a judge or before a prompt, that others have published and we do not print.

A profile may say

    judges.harm.options: {value: {template_file: harmbench.txt}, said: the model card of the judge}

and the text of that file, which lies beside the profile, stands in the place of the option `template`; of a judge
behind an API `rubric_file` is `rubric`. The instruction that stands before prompts which say what is wanted is likewise

    task_options.instruction_file: {value: instruction.txt, said: the released code}

in the place of `task_options.instruction`. The text, and not the path, gets into cells: it decides their keys as words
that stand in the profile do.

Knows options as a profile writes them, and files. Knows nothing about judges or tasks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerlib.experiment.profile_fields import TableError

#: Option that names a file -> the option whose text lies there, and fields of which the text must have one.
FILES = {"template_file": ("template", ("{answer}",)), "rubric_file": ("rubric", ("{answer}", "{first}"))}
#: Field that names a file -> the field whose text lies there.
INSTRUCTIONS = {"task_options.instruction_file": "task_options.instruction"}
_JUDGE = re.compile(r"judges\.[^.]+(?P<options>\.options)?")
_FIELDS = re.compile(r"\{\w+\}")


def with_prompts(told: Any, file: Path) -> Any:
    """A profile, or a part of one, with the text of every prompt that it names a file for; what it is given stays.

    Args:
        told: as read from YAML.
        file: the profile; paths are relative to its folder.

    Raises:
        TableError: no such file, or one that holds no prompt; names the field, the file, and what is expected there.
    """
    if isinstance(told, Mapping):
        found = {name: _judge(str(name), below, file) for name, below in told.items()}
        for name, target in INSTRUCTIONS.items():
            if name in found:
                found[target] = _instruction(found.pop(name), file, f"{file}, {name}", target in found)
        return found
    return [with_prompts(one, file) for one in told] if isinstance(told, list) else told


def _judge(name: str, below: Any, file: Path) -> Any:
    """What a profile says of a field, if it is a judge or the options of one; else see `with_prompts`."""
    found = _JUDGE.fullmatch(name)
    value = below.get("value") if isinstance(below, Mapping) else None
    if found is None or not isinstance(value, Mapping):
        return with_prompts(below, file)
    if found["options"]:
        return {**below, "value": _options(name, value, file)}
    options = value.get("options")
    if not isinstance(options, Mapping):
        return below
    return {**below, "value": {**value, "options": _options(f"{name}, options", options, file)}}


def _options(name: str, options: Mapping[str, Any], file: Path) -> dict[str, Any]:
    found = dict(options)
    for option in FILES.keys() & options.keys():
        target, needed = FILES[option]
        where = f"{file}, {name}"
        if target in options:
            raise TableError(f"{where}: got {target} and {option}, expected one of them")
        found[target] = _read(found.pop(option), needed, file.parent, f"{where}, {option}")
    return found


def _instruction(below: Any, file: Path, where: str, twice: bool) -> Any:
    """What a profile says of an instruction, with its text for the name of its file."""
    if twice:
        raise TableError(f"{where}: got the instruction itself, too, expected one of them")
    value = below.get("value") if isinstance(below, Mapping) else below
    text = _read(value, (), file.parent, where)
    if not text.strip():
        raise TableError(f"{where}: {value} is empty. Expected a file with the instruction")
    return {**below, "value": text} if isinstance(below, Mapping) else text


def _read(given: Any, needed: tuple[str, ...], folder: Path, where: str) -> str:
    """The text of a prompt, or of an instruction if it needs no field, without the newline that editors put last."""
    wanted = f"a file with the judge's prompt, {' or '.join(needed)} where an answer belongs"
    wanted = wanted if needed else "a file with the instruction"
    if not isinstance(given, str) or not given.strip():
        raise TableError(f"{where}: got {given!r}, expected the name of {wanted}")
    path = folder / Path(given).expanduser()
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise TableError(f"{where}: {path} is not text in UTF-8 ({error}). Expected {wanted}") from error
    except OSError as error:
        raise TableError(
            f"{where}: {path} cannot be read ({error.strerror}). Expected {wanted}. Fix: save the prompt there, or say "
            "it in the profile itself"
        ) from error
    if needed and not any(field in text for field in needed):
        fields = ", ".join(dict.fromkeys(_FIELDS.findall(text))) or "no field"
        raise TableError(f"{where}: {path} has {fields}. Expected {wanted}, and {{prompt}} where the question belongs")
    return text
