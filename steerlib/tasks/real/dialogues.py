"""Dialogues as a plant's chat template puts them, for tasks whose papers ask a model with a template of its own in it.

Knows turns, templates and the first token that both a template and its tokenizer may write. Knows no behaviour.
"""

from __future__ import annotations

from collections.abc import Sequence

from steerlib.errors import MetricError
from steerlib.plant import Plant


def dialogue(plant: Plant, turns: Sequence[str], *, system: str = "") -> str:
    """Turns of a person and an assistant, the person's first, as the plant's chat template puts them.

    After a turn of the person the assistant is to speak: the text ends with what the template puts before an answer.
    After one of the assistant it ends as the template ends a turn, so that its last token may be one of the template
    and not of the answer. Without ``system`` some templates put an instruction of their own there, as Qwen2.5's does.
    A first token that the tokenizer will write is left to it.

    Args:
        plant: whose template.
        turns: at least one.
        system: an instruction before all of them; "" for none.

    Raises:
        MetricError: the plant's tokenizer has no chat template.
    """
    tokenizer = plant.tokenizer
    if not tokenizer.chat_template:
        raise MetricError(
            f"{plant.name}: got a tokenizer without a chat template, expected one that has it. Fix: chat=False, for "
            "dialogues in plain words, or a model with a template."
        )
    said = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    if system:
        said = [{"role": "system", "content": system}, *said]
    shown = str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=len(turns) % 2 == 1))
    first = tokenizer.bos_token
    begins = isinstance(first, str) and shown.startswith(first)
    if begins and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]:
        return shown.removeprefix(str(first))
    return shown


def stopped(answer: str, at: str) -> str:
    """An answer without the full stop at its end, or with one: see ``at`` of `RealTask.drawn`."""
    return answer.rstrip(". ") + ("." if at == "end" else "")
