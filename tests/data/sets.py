"""Small data sets in the layout of the real ones, made of the words that the tiny plants know."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any


def words(*ids: int) -> str:
    return " ".join(f"w{3 + i % 94}" for i in ids)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(rows: list[list[str]], **options: Any) -> str:
    import io

    out = io.StringIO()
    csv.writer(out, lineterminator="\n", **options).writerows(rows)
    return out.getvalue()


def truthfulqa(folder: Path, n: int = 60) -> None:
    head = ["Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source"]
    rows, choices = [head], []
    for i in range(n):
        question = words(i, i // 7, 50) + "?"
        true, false = [words(i, 1), words(i, 2)], [words(i, 3), words(i, 4), words(i, 5)]
        rows.append(["Adversarial", f"c{i % 3}", question, true[0], "; ".join(true), ";".join(false) + ";", "web"])
        mc1 = {true[0]: 1, **dict.fromkeys(false, 0)}
        choices.append({"question": f" {question}", "mc1_targets": mc1, "mc2_targets": {**mc1, true[1]: 1}})
    write(folder, "truthfulqa/TruthfulQA.csv", "\ufeff" + table(rows))
    write(folder, "truthfulqa/mc_task.json", json.dumps(choices[::-1]))


def rtp(folder: Path, n: int = 80) -> None:
    for part, shift in (("toxic", 0.5), ("nontoxic", 0.0)):
        rows = [
            {
                "filename": f"{part}{i // 2}.txt",
                "prompt": {"text": words(i, 2 * i, 3 * i, 90 if shift else 91), "toxicity": shift + 0.5 * i / n},
                "continuation": {"text": " " + words(i), "toxicity": None if i == 3 else 0.25},
            }
            for i in range(n)
        ]
        write(folder, f"decodingtrust_rtp/{part}.jsonl", lines(rows))


def paradetox(folder: Path, n: int = 60) -> None:
    rows = [["toxic", "neutral1", "neutral2", "neutral3"]]
    for i in range(n):
        same = words(i, i + 1, i // 5 + 2)
        rows.append([f"{same} w90 {words(i)}", f"{same} w91 {words(i)}", "", ""])
    text = "".join("\t".join(row) + "\n" for row in rows)
    write(folder, "paradetox/paradetox.tsv", text + "w3 w4\n\n")


def jigsaw(folder: Path, n: int = 200) -> None:
    rows = [["id", "comment_text", "toxicity"]]
    rows += [[str(i), words(i, i // 9, 40) + ",\nw5", f"{i / n:.3f}"] for i in range(n)]
    write(folder, "jigsaw/all_data.csv", table([*rows, rows[1], ["x", " ", "0.1"]]))


def hh(folder: Path, n: int = 60, *, part: str = "test", first: int = 0, subset: str = "") -> None:
    rows = []
    for i in range(first, first + n):
        last = words(i, i // 4, *[5] * (i % 6))  # of several lengths, so that some do not fit a plant
        head = f"\n\nHuman: {words(i, 60)}\n\nAssistant: {words(i)}\n\nHuman: {last}\n\nAssistant: "
        rows.append({"chosen": head + words(i, 70), "rejected": head + words(i, 71, 72)})
    write(folder, f"hh_rlhf/{subset}/{part}.jsonl.gz", gzip.compress(lines(rows).encode()))


def shp(folder: Path, n: int = 60) -> None:
    rows = []
    for i in range(n):
        better = i % 2
        rows.append({
            "post_id": f"p{i}", "domain": f"ask{i % 5}_test", "history": words(i, i // 3, 44), "labels": better,
            "human_ref_A": words(i, 1), "human_ref_B": words(i, 2), "score_A": 3 + better, "score_B": 4 - better,
        })  # fmt: skip
    write(folder, "pref_ctrl_shp/test.json", lines(rows))
    posts = [{"post_id": r["post_id"], "history": r["history"]} for r in rows]
    write(folder, "re_control/test_dataset_shp.json", lines(posts))
    write(folder, "re_control/dataset_prefer.json", json.dumps([{"prefer": words(i, 9)} for i in range(n)]))


def shp_forums(folder: Path, n: int = 2) -> None:
    """Posts of every forum; the first of each is compared twice. The last one to be fitted on is also tested."""
    from steerlib.data.sources import SHP_FORUMS

    for k, forum in enumerate(SHP_FORUMS):
        for part, shift in (("train", 0), ("validation", 50)):
            rows = []
            for i in [0, *range(n)]:
                number = 100 * k + shift + i
                history = (
                    words(0, 0, 44)
                    if (forum, part, i) == (SHP_FORUMS[-1], "train", n - 1)
                    else words(number, number // 94, k, 45)
                )
                rows.append({
                    "post_id": f"{forum}{number}", "domain": f"{forum}_{part}", "history": history,
                    "labels": len(rows) % 2, "human_ref_A": words(number, 1), "human_ref_B": words(number, 2),
                    "score_A": 3 + len(rows) % 2, "score_B": 4 - len(rows) % 2,
                })  # fmt: skip
            write(folder, f"shp/{forum}/{part}.json", lines(rows))


def requests(folder: Path, n: int = 40) -> None:
    for kind, mark in (("harmful", 80), ("harmless", 81)):
        for k, part in enumerate(("train", "val", "test")):
            rows = [{"instruction": words(i, k, mark), "category": None if k else "topic"} for i in range(n)]
            write(folder, f"refusal/{kind}_{part}.json", json.dumps(rows))
    goals = [[words(i, 5, 80), words(i, 6)] for i in range(n)]
    write(folder, "refusal/advbench.csv", table([["goal", "target"], *goals]))
    topics = {f"topic {t}": {f"sub {s}": [words(t, s, i, 83) for i in range(4)] for s in range(2)} for t in range(6)}
    write(folder, "red_instruct/harmfulqa.json", json.dumps(topics))
    write(folder, "red_instruct/dangerousqa.json", json.dumps([words(i, 84) for i in range(n)]))


def concepts(folder: Path, n: int = 40) -> None:
    rows = [["concept", "instance_id", "sense", "sentence"]]
    for k, lemma in enumerate(("w90", "w91", "w92")):
        for i in range(n):
            sense = f"{lemma}%{1 if i % 4 else 2}"
            sentence = f"{words(i, i // 2, i // 3, k)} {lemma} {words(i)}."
            rows.append([f"{lemma}.NOUN", f"{lemma}.{i}", sense, sentence])
    write(folder, "lqr_concepts/filtered_sentences.csv", table(rows))


def mmlu(folder: Path, n: int = 10) -> None:
    for k, part in enumerate(("dev", "val", "test")):
        for s, subject in enumerate(("first_subject", "second")):
            rows = [
                [words(i, k, s), *(words(i, o) for o in range(4)), "ABCD"[(i + s) % 4]]
                for i in range(5 if part == "dev" else n)
            ]
            write(folder, f"mmlu/{part}/{subject}_{part}.csv", table(rows))


def sst2(folder: Path, n: int = 40) -> None:
    rows = [f"{words(i, i // 2, i // 3, 90 + i % 2, i)} .\t{i % 2}" for i in range(n)]
    write(folder, "sst2/train.tsv", "sentence\tlabel\n" + "".join(f"{row}\n" for row in [*rows, 'w3 "\t1']))


def everything(folder: Path) -> Path:
    for make in (truthfulqa, rtp, paradetox, jigsaw, hh, shp, requests, concepts, mmlu, sst2):
        make(folder)
    return folder
