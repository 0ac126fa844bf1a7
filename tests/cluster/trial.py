"""Both ends of a trial on a cluster: the grid that is run, and what must be true of its records afterwards.

trial.py plan FOLDER       writes grid.yml, and parts.tsv with the key of every cell of every part
trial.py snapshot FOLDER   notes which record files there are, and what is in them
trial.py check FOLDER PART asserts all of it, PART being the one that was on the lost node; says it in a line each
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

import yaml

PARTS, EACH = 3, 8
SUMMARY = re.compile(
    r"part \S+: (\d+) cells were there, (\d+) computed, (\d+) awaited from another process, (\d+) fail"
)


def plan(folder: Path) -> None:
    """Small exact cells of a tiny plant, told apart by their number of prompts; about a second each."""
    from steerlib.experiment.grid import part_of, read_grid
    from steerlib.experiment.keys import key_of

    over = {"plant": ["almanac-llama-tiny"], "task": ["truth"], "limit": list(range(100, 100 + PARTS * EACH))}
    (folder / "grid.yml").write_text(yaml.safe_dump({"blocks": [{"over": over}]}))
    cells = read_grid(folder / "grid.yml")
    rows = [f"{k}-of-{PARTS}\t{key_of(c)}\n" for k in range(1, PARTS + 1) for c in part_of(cells, f"{k}/{PARTS}")]
    (folder / "parts.tsv").write_text("".join(rows))


def snapshot(folder: Path) -> dict[str, list[str]]:
    """Key -> inode, time of writing and hash of each record file."""
    found = {}
    for file in sorted((folder / "store").glob("??/*.json")):
        facts = file.stat()
        found[file.stem] = [str(facts.st_ino), str(facts.st_mtime_ns), hashlib.sha256(file.read_bytes()).hexdigest()]
    return found


def planned(folder: Path) -> dict[str, set[str]]:
    """Part -> keys of its cells."""
    parts: dict[str, set[str]] = {}
    for line in (folder / "parts.tsv").read_text().splitlines():
        part, key = line.split("\t")
        parts.setdefault(part, set()).add(key)
    return parts


def check(folder: Path, lost: str) -> None:
    """Every cell has a sound record, none was computed twice, and the lost part was begun again where it stood."""
    from steerlib.experiment.store import Store

    parts, before, after = planned(folder), json.loads((folder / "snapshot.json").read_text()), snapshot(folder)
    keys = set().union(*parts.values())
    store = Store(folder / "store")
    expect(store.keys() == keys, f"{len(after)} records, one for each of the {len(keys)} cells and no others")
    sound = [key for key in keys if store.get(key) is not None]
    strays = [file.name for file in (folder / "store").glob("??/*") if file.name.removesuffix(".json") not in keys]
    expect(len(sound) == len(keys) and not store.damaged and not strays, "every record is whole, and none half written")
    rewritten = [key for key in before if before[key] != after[key]]
    expect(not rewritten, f"the {len(before)} records that the node's loss found there were left as they were")
    kept = len(parts[lost] & set(before))
    for part, of_part in sorted(parts.items()):
        logs = sorted((folder / ".snakemake/slurm_logs/rule_part" / part).glob("*.log"))
        ends = [tuple(map(int, found)) for log in logs for found in SUMMARY.findall(log.read_text(errors="replace"))]
        there = kept if part == lost else 0
        expect(
            ends == [(there, len(of_part) - there, 0, 0)],
            f"part {part}{' (the lost one)' if part == lost else ''} ended once: (there, computed, awaited, failed) is "
            f"{(there, len(of_part) - there, 0, 0)}" + ("" if len(ends) == 1 else f", and its logs say {ends}"),
        )


def expect(holds: bool, what: str) -> None:
    """Say what was looked at; end with 1 if it does not hold."""
    print(("ok: " if holds else "FAILED: ") + what, flush=True)
    if not holds:
        raise SystemExit(1)


if __name__ == "__main__":
    act, place = sys.argv[1], Path(sys.argv[2])
    if act == "plan":
        plan(place)
    elif act == "snapshot":
        (place / "snapshot.json").write_text(json.dumps(snapshot(place)))
    else:
        check(place, sys.argv[3])
