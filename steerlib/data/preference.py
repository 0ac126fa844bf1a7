"""Pairs of answers of which people preferred one: HH-RLHF, Stanford Human Preferences, UltraFeedback.

Knows their files, and how a conversation is cut into what was asked and what was answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from steerlib.data.reading import DataError, Record, read_json_lines, read_list, read_parquet
from steerlib.data.sources import SHP_FORUMS, Loaded, locate
from steerlib.errors import unknown

#: Parts of HH-RLHF, as its authors name their folders.
HhSubset = Literal["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"]
HH_SUBSETS: tuple[HhSubset, ...] = get_args(HhSubset)
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


@dataclass(frozen=True)
class PreferencePair:
    """A conversation and two answers.

    Attributes:
        turns: what was said before the answer, the person first; the last is the person's.
        chosen: the answer that was preferred.
        rejected: the other answer, or "" where the file has only the preferred one.
        entity: what the conversation is about, as the set names it: a post, or the first thing said.
        family: the part of the set it belongs to, such as a forum.
    """

    turns: tuple[str, ...]
    chosen: str
    rejected: str
    entity: str
    family: str


def load_hh(
    data: str | Path | None = None, *, part: Literal["train", "test"] = "test", subset: HhSubset = "harmless-base"
) -> Loaded[PreferencePair]:
    """A subset of HH-RLHF (Bai et al. 2022); RE-Control takes all four.

    Rows whose two conversations differ before the last answer are left out: they are no choice between answers.

    Args:
        data: data folder; see `steerlib.data.sources.locate`.
        part: "train" or "test".
        subset: one of `HH_SUBSETS`. The harmless one lies in ``hh_rlhf``, each of the others in a folder of its name
            therein, which `steerlib fetch hh_rlhf_helpful` fills.

    Raises:
        DataError: no such subset, the file is absent or malformed, or a conversation does not take turns.
    """
    if subset not in HH_SUBSETS:
        raise DataError(unknown("subset of HH-RLHF", subset, HH_SUBSETS))
    harmless = subset == "harmless-base"
    name, folder = ("hh_rlhf", "hh_rlhf") if harmless else ("hh_rlhf_helpful", f"hh_rlhf/{subset}")
    files = locate(name, [f"{folder}/{part}.jsonl.gz"], data=data)
    rows, left_out = [], []
    for row in read_json_lines(files[0]):
        asked, chosen = _cut(row, "chosen")
        other, rejected = _cut(row, "rejected")
        if asked != other or not chosen or not rejected or chosen == rejected:
            why = "the conversations differ before the answer" if asked != other else "no two answers"
            left_out.append(f"{row.place}: {why}")
            continue
        rows.append(PreferencePair(asked, chosen, rejected, asked[0], "harmless" if harmless else subset))
    return Loaded(tuple(rows), files, tuple(left_out))


def _cut(row: Record, field: str) -> tuple[tuple[str, ...], str]:
    """Turns before the last answer, and that answer."""
    text = row.raw(field)
    head, mark, answer = text.rpartition(ASSISTANT)
    if not mark or not head.startswith(HUMAN):
        raise row.error(field, f"expected a conversation that begins with {HUMAN!r} and has an {ASSISTANT!r}")
    turns = [turn.strip() for piece in head.split(HUMAN)[1:] for turn in piece.split(ASSISTANT)]
    return tuple(turns), answer.strip()


def load_shp(
    data: str | Path | None = None, *, layout: Literal["pref_ctrl", "re_control"] = "pref_ctrl"
) -> Loaded[PreferencePair]:
    """Stanford Human Preferences: the thousand posts that RE-Control evaluates on.

    Args:
        data: data folder; see `steerlib.data.sources.locate`.
        layout: "pref_ctrl", with both answers, scores and forum; "re_control", with the preferred answers alone.

    Raises:
        DataError: a file is absent or malformed, the lists of RE-Control differ in length, or the label of a row
            contradicts its scores.
    """
    if layout == "re_control":
        return _re_control(data)
    files = locate("pref_ctrl_shp", ["pref_ctrl_shp/test.json"], data=data)
    return Loaded(tuple(_comparison(row) for row in read_json_lines(files[0])), files)


def load_shp_forums(
    data: str | Path | None = None, *, part: Literal["train", "validation"] = "train"
) -> Loaded[PreferencePair]:
    """Stanford Human Preferences as published: the posts of all forums, which RE-Control fits and validates on.

    A post has as many rows as pairs of its answers were compared. The first stands for it: a plant that answers a post
    twice, greedily, says the same twice.

    Args:
        data: data folder; see `steerlib.data.sources.locate`. Forum by forum, as `steerlib fetch shp` writes it.
        part: "train" or "validation".

    Raises:
        DataError: a file is absent or malformed, or the label of a row contradicts its scores.
    """
    files = locate("shp", [f"shp/{forum}/{part}.json" for forum in SHP_FORUMS], data=data)
    rows: dict[str, PreferencePair] = {}
    left_out = []
    for file in files:
        for row in read_json_lines(file):
            pair = _comparison(row)
            if rows.setdefault(pair.entity, pair) is not pair:
                left_out.append(f"{file.parent.name}, {row.place}: another pair of answers to an earlier post")
    return Loaded(tuple(rows.values()), files, tuple(left_out))


def _comparison(row: Record) -> PreferencePair:
    """A post and two of its answers, of which the one with the higher score is preferred."""
    first = int(row.number("labels", low=0, high=1))
    score_a, score_b = row.number("score_A"), row.number("score_B")
    if (score_a > score_b) != (first == 1) or score_a == score_b:
        raise row.error("labels", f"got {first}, but the scores are {score_a:g} and {score_b:g}")
    answers = row.text("human_ref_A"), row.text("human_ref_B")
    chosen, rejected = answers if first else answers[::-1]
    family = row.text("domain").rpartition("_")[0] or row.text("domain")
    return PreferencePair((row.text("history"),), chosen, rejected, row.text("post_id"), family)


def _re_control(data: str | Path | None) -> Loaded[PreferencePair]:
    posts, answers = files = locate(
        "re_control", ["re_control/test_dataset_shp.json", "re_control/dataset_prefer.json"], data=data
    )
    asked, preferred = read_json_lines(posts), read_list(answers)
    if len(asked) != len(preferred):
        raise DataError(
            f"{answers}: got {len(preferred)} answers to the {len(asked)} posts of {posts.name}; row i answers row i."
        )
    return Loaded(
        tuple(
            PreferencePair((post.text("history"),), answer.text("prefer"), "", post.text("post_id"), "posts")
            for post, answer in zip(asked, preferred, strict=True)
        ),
        files,
    )


def load_ultrafeedback(
    data: str | Path | None = None, *, part: Literal["train", "test"] = "test"
) -> Loaded[PreferencePair]:
    """UltraFeedback, binarized, as ODESteer uses it: pairs whose scores differ, each prompt once.

    Raises:
        DataError: the file is absent or malformed, or there is no engine for Parquet.
    """
    files = locate("ultrafeedback", [f"ultrafeedback/{part}_prefs.parquet"], data=data)
    rows: dict[str, PreferencePair] = {}
    left_out = []
    for row in read_parquet(files[0], ("prompt", "chosen", "rejected", "score_chosen", "score_rejected")):
        prompt = row.text("prompt")
        if row.number("score_chosen") <= row.number("score_rejected"):
            left_out.append(f"{row.place}: the chosen answer has no higher score")
        elif prompt in rows:
            left_out.append(f"{row.place}: the prompt of an earlier row")
        else:
            chosen, rejected = (_last(row, field) for field in ("chosen", "rejected"))
            rows[prompt] = PreferencePair((prompt,), chosen, rejected, prompt, "ultrafeedback")
    return Loaded(tuple(rows.values()), files, tuple(left_out))


def _last(row: Record, field: str) -> str:
    """The last message of a conversation that is a list of messages."""
    messages = row.get(field)
    try:
        return Record(row.file, f"{row.place}, in {field!r}", dict(messages[-1])).text("content")
    except (TypeError, IndexError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise row.error(field, "expected a list of messages, each with role and content") from error
