"""The rule that a skip must be listed, seen at work on a small test suite."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = {
    "test_a.py": "import pytest\ndef test_fine(): pass\ndef test_skips(): pytest.skip('no samples')\n",
    "test_b.py": "import pytest\npytest.skip('no browser', allow_module_level=True)\n",
    "test_c.py": "import pytest\n@pytest.mark.xfail\ndef test_known(): assert False\n",
}


def outcome(folder: Path, allowed: str, *options: str) -> tuple[int, str]:
    shutil.copyfile(Path(__file__).with_name("conftest.py"), folder / "conftest.py")
    (folder / "allowed_skips.txt").write_text(allowed)
    for name, text in SUITE.items():
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", "."]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_unlisted_skips_fail(tmp_path: Path, workers: tuple[str, ...]) -> None:
    code, told = outcome(tmp_path, "test_b.py  # browsers are for people\n", "--no-unlisted-skips", *workers)
    assert code == 1
    assert "UNLISTED SKIP test_a.py::test_skips: Skipped: no samples" in told
    assert "UNLISTED SKIP test_b.py" not in told
    code, told = outcome(tmp_path, "", "--no-unlisted-skips", *workers)
    assert "UNLISTED SKIP test_b.py" in told


def test_listed_skips_pass_and_others_are_not_asked(tmp_path: Path) -> None:
    assert outcome(tmp_path, "test_[ab].py*  # why\n", "--no-unlisted-skips")[0] == 0
    assert outcome(tmp_path, "")[0] == 0


def test_a_listed_skip_needs_a_reason(tmp_path: Path) -> None:
    code, told = outcome(tmp_path, "test_a.py*\n", "--no-unlisted-skips")
    assert code != 0
    assert "has no reason" in told
