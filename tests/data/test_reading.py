"""Files that are not what they should be: each error names file, place and field."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from steerlib.data.reading import DataError, Record, read_json, read_json_lines, read_list, read_parquet, read_table


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


class TestTable:
    def test_quotes_marks_and_line_breaks(self, tmp_path: Path) -> None:
        file = write(tmp_path, "a.csv", '\ufeffq,a\n"one, ""two""\nthree",4\nfünf,6\n')
        rows = read_table(file, ["q", "a"])
        assert [dict(r.fields) for r in rows] == [{"q": 'one, "two"\nthree', "a": "4"}, {"q": "fünf", "a": "6"}]
        # A row is named by the line where it begins, also after one that spans two lines.
        assert [r.place for r in rows] == ["line 2", "line 4"]

    def test_unquoted(self, tmp_path: Path) -> None:
        file = write(tmp_path, "a.tsv", 'a\tb\n"open\tshut"\nalone\n\n')
        rows = read_table(file, ["a", "b"], delimiter="\t", quoted=False, ragged=True)
        assert [dict(r.fields) for r in rows] == [{"a": '"open', "b": 'shut"'}, {"a": "alone"}]

    def test_without_a_header(self, tmp_path: Path) -> None:
        rows = read_table(write(tmp_path, "a.csv", "x,1\ny,2\n"), ["name", "number"], header=False)
        assert [(r.place, r.text("name")) for r in rows] == [("line 1", "x"), ("line 2", "y")]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("a,c\n1,2\n", "line 1: column 'b' is missing; expected a, b, got a, c"),
            ("a,b\n1,2\n1\n", "line 3: got 1 fields, expected 2"),
            ("a,b\n1,2,3\n", "line 2: got 3 fields, expected 2"),
            ('a,b\n1,"open\n', "unexpected end of data"),
            ("a,b\n", "holds no row"),
            ("", "empty, expected rows"),
            (b"a,b\n\xff,1\n", "byte 4 is not UTF-8"),
        ],
    )
    def test_malformed(self, tmp_path: Path, content: str | bytes, message: str) -> None:
        file = write(tmp_path, "bad.csv", content)
        with pytest.raises(DataError) as caught:
            read_table(file, ["a", "b"])
        assert message in str(caught.value) and str(file) in str(caught.value)

    def test_absent(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such file"):
            read_table(tmp_path / "none.csv", ["a"])


class TestJson:
    def test_lines_gzipped(self, tmp_path: Path) -> None:
        file = write(tmp_path, "a.jsonl.gz", gzip.compress(b'{"a": 1}\n\n{"a": 2}\n'))
        assert [(r.place, r.number("a")) for r in read_json_lines(file)] == [("line 1", 1), ("line 3", 2)]

    def test_cut_off_gzip(self, tmp_path: Path) -> None:
        whole = gzip.compress(b"".join(b'{"a": "%d"}\n' % (i * i) for i in range(3000)))
        file = write(tmp_path, "a.jsonl.gz", whole[: len(whole) // 2])
        with pytest.raises(DataError, match="ends in the middle"):
            read_json_lines(file)

    @pytest.mark.parametrize("content", [b"plain text\n", b"\x1f\x8b" + b"\x00" * 30])
    def test_not_gzip(self, tmp_path: Path, content: bytes) -> None:
        with pytest.raises(DataError, match="not gzip, or damaged"):
            read_json_lines(write(tmp_path, "a.jsonl.gz", content))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ('{"a": 1}\n{"a": \n', "line 2, column"),
            ('{"a": 1}\n[1]\n', "line 2: got [1], expected an object"),
            ("\n \n", "holds no row"),
        ],
    )
    def test_malformed_lines(self, tmp_path: Path, content: str, message: str) -> None:
        with pytest.raises(DataError) as caught:
            read_json_lines(write(tmp_path, "a.jsonl", content))
        assert message in str(caught.value)

    def test_malformed_whole(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="line 2, column"):
            read_json(write(tmp_path, "a.json", "[1,\n 2,,]"))
        with pytest.raises(DataError, match="got dict, expected a list"):
            read_list(write(tmp_path, "b.json", '{"a": 1}'))
        with pytest.raises(DataError, match="item 2: got 3, expected an object"):
            read_list(write(tmp_path, "c.json", '[{"a": 1}, 3]'))
        with pytest.raises(DataError, match="holds no row"):
            read_list(write(tmp_path, "d.json", "[]"))


class TestRecord:
    row = Record(Path("set.csv"), "line 7", {"t": " x ", "n": "0.5", "none": None, "e": " ", "o": {"in": 1}, "b": True})

    def test_values(self) -> None:
        assert (self.row.text("t"), self.row.raw("t"), self.row.number("n")) == ("x", " x ", 0.5)
        assert self.row.text("e", empty=True) == ""
        assert self.row.inner("o").number("in") == 1

    @pytest.mark.parametrize(
        ("take", "message"),
        [
            (lambda r: r.text("absent"), "field 'absent': missing; expected it among the fields, which are: t, n"),
            (lambda r: r.text("none"), "field 'none': got None, expected text"),
            (lambda r: r.text("e"), "field 'e': empty"),
            (lambda r: r.number("t"), "field 't': got ' x ', expected a number"),
            (lambda r: r.number("b"), "field 'b': got True, expected a number"),
            (lambda r: r.number("n", low=1), "got '0.5', expected a number from 1 to inf"),
            (lambda r: r.inner("t"), "field 't': got ' x ', expected an object"),
            (lambda r: r.inner("o").text("in"), "in 'o', field 'in': got 1, expected text"),
        ],
    )
    def test_errors_name_the_place(self, take, message: str) -> None:
        with pytest.raises(DataError) as caught:
            take(self.row)
        assert str(caught.value).startswith("set.csv, line 7") and message in str(caught.value)

    @pytest.mark.parametrize("value", ["nan", float("inf"), [], {}])
    def test_no_number(self, value: object) -> None:
        with pytest.raises(DataError, match="expected a number"):
            Record(Path("f"), "line 1", {"n": value}).number("n")


class TestParquet:
    def test_rows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import pandas

        file = write(tmp_path, "a.parquet", "stands for one")
        frame = pandas.DataFrame({"a": ["x", "y"], "n": [1, 2], "more": [0, 0]})
        monkeypatch.setattr(pandas, "read_parquet", lambda found: frame if found == file else None)
        rows = read_parquet(file, ["a", "n"])
        assert [(r.place, dict(r.fields)) for r in rows] == [
            ("row 1", {"a": "x", "n": 1}),
            ("row 2", {"a": "y", "n": 2}),
        ]
        with pytest.raises(DataError, match="column 'b' is missing; got a, n, more"):
            read_parquet(file, ["b"])

    def test_no_engine_or_no_parquet(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import pandas

        file = write(tmp_path, "a.parquet", json.dumps({}))
        for error, message in (
            (ImportError("x"), "pip install pyarrow"),
            (OSError("magic"), "not Parquet, or damaged"),
        ):

            def fail(_file: Path, error: Exception = error) -> None:
                raise error

            monkeypatch.setattr(pandas, "read_parquet", fail)
            with pytest.raises(DataError, match=message):
                read_parquet(file, ["a"])
        with pytest.raises(DataError, match="no such file"):
            read_parquet(tmp_path / "b.parquet", ["a"])
