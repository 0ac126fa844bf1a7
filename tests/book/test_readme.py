"""The README's example runs as printed."""

from __future__ import annotations

import re

import pytest

from steerlib.files import data_folder
from tests.book.site import ROOT

PLANT = "almanac-llama"


@pytest.mark.skipif(
    not (data_folder() / "plants" / PLANT / "config.json").is_file(), reason=f"plant {PLANT} is not in data/plants"
)
def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.S | re.M)
    assert len(blocks) == 1
    assert len([line for line in blocks[0].splitlines() if line.strip()]) <= 10
    exec(compile(blocks[0], "README.md", "exec"), {})  # the block is ours, and the point is to run it as it stands
    printed = capsys.readouterr().out.strip().splitlines()
    assert len(printed) == 3
    unsteered, steered = (float(line.split()[0]) for line in printed[:2])  # "0.43 [0.38, 0.49]"
    assert steered > unsteered, "the example must show a law that helps"


def test_the_files_it_links_to_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    local = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert local
    assert not [link for link in local if not (ROOT / link).exists()]
