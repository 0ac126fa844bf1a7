"""Each loader: what its rows are, what it leaves out, and what it refuses."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from steerlib.data.choices import load_mmlu
from steerlib.data.concepts import load_concepts
from steerlib.data.instructions import load_advbench, load_instructions, load_red
from steerlib.data.preference import HH_SUBSETS, load_hh, load_shp, load_shp_forums, load_ultrafeedback
from steerlib.data.reading import DataError, Record
from steerlib.data.sentiment import load_sst2
from steerlib.data.sources import SHP_FORUMS, SOURCES, AbsentDataError
from steerlib.data.toxicity import load_jigsaw, load_paradetox, load_rtp
from steerlib.data.truth import load_truthfulqa
from tests.data import sets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sets.everything(tmp_path_factory.mktemp("sets"))


class TestRows:
    def test_truthfulqa(self, folder: Path) -> None:
        found = load_truthfulqa(folder)
        row = found.rows[0]
        assert row.question == sets.words(0, 0, 50) + "?" and row.adversarial
        assert row.correct == (sets.words(0, 1), sets.words(0, 2)) and len(row.incorrect) == 3
        # The list of choices is in another order than the table: they are joined by question.
        assert row.mc1[0] == (sets.words(0, 1), True) and sum(true for _, true in row.mc2) == 2
        assert [file.name for file in found.files] == ["TruthfulQA.csv", "mc_task.json"]

    def test_sst2(self, folder: Path) -> None:
        rows = load_sst2(folder).rows
        assert len(rows) == 41 and [row.happy for row in rows[:2]] == [False, True]
        assert rows[1].sentence == f"{sets.words(1, 0, 0, 91, 1)} ." and rows[40].sentence == 'w3 "'

    def test_a_label_of_sst2_is_0_or_1(self, tmp_path: Path) -> None:
        sets.write(tmp_path, "sst2/train.tsv", "sentence\tlabel\na fine film\t1\na poor one\t-1\n")
        with pytest.raises(DataError, match="train.tsv, line 3, field 'label': got '-1', expected 0 or 1"):
            load_sst2(tmp_path)

    def test_rtp(self, folder: Path) -> None:
        rows = load_rtp(folder).rows
        assert len(rows) == 160 and rows[0].toxicity == 0.5 and rows[80].toxicity == 0.0
        assert rows[3].continuation_toxicity is None and rows[4].continuation_toxicity == 0.25
        assert rows[0].continuation.startswith(" ")

    def test_paradetox_leaves_out_what_has_no_paraphrase(self, folder: Path) -> None:
        found = load_paradetox(folder)
        assert len(found.rows) == 60 and found.rows[0].neutral == ("w3 w4 w5 w91 w3",)
        assert found.left_out == ("line 62: no paraphrase",)

    def test_jigsaw_leaves_out_repetitions(self, folder: Path) -> None:
        found = load_jigsaw(folder)
        assert len(found.rows) == 200 and found.rows[100].toxicity == 0.5
        # Rows span two lines each.
        assert found.left_out == ("line 402: the same as an earlier comment", "line 404: no text")

    def test_hh(self, folder: Path) -> None:
        row = load_hh(folder).rows[1]
        assert row.turns == (sets.words(1, 60), sets.words(1), sets.words(1, 0, 5))
        assert (row.chosen, row.rejected, row.entity) == (sets.words(1, 70), sets.words(1, 71, 72), sets.words(1, 60))

    def test_subsets_of_hh_lie_in_folders_of_their_names(self, tmp_path: Path) -> None:
        for k, subset in enumerate(HH_SUBSETS):
            sets.hh(tmp_path, 4 + k, first=10 * k, subset="" if k == 0 else subset)
            found = load_hh(tmp_path, subset=subset)
            assert len(found.rows) == 4 + k and found.rows[0].chosen == sets.words(10 * k, 70)
            assert {row.family for row in found.rows} == {subset if k else "harmless"}
            # Each is what `steerlib fetch` brings, under the name that its folder has at the home.
            home = SOURCES["hh_rlhf_helpful" if k else "hh_rlhf"].homes[0]
            places = {here: remote for remote, here in home.files}
            assert places[found.files[0].relative_to(tmp_path).as_posix()] == f"{subset}/test.jsonl.gz"
        with pytest.raises(AbsentDataError, match=r"helpful-online/train\.jsonl\.gz.*steerlib fetch hh_rlhf_helpful"):
            load_hh(tmp_path, part="train", subset="helpful-online")
        with pytest.raises(DataError, match="subset of HH-RLHF 'helpful-bse', which does not exist. Did you mean help"):
            load_hh(tmp_path, subset="helpful-bse")  # type: ignore[arg-type]

    def test_hh_leaves_out_what_is_no_choice(self, tmp_path: Path) -> None:
        a, b = "\n\nHuman: x\n\nAssistant: ", "\n\nHuman: y\n\nAssistant: "
        rows = [(a + "1", a + "2"), (a + "1", b + "2"), (a + "1", a + "1"), (a + "1", a)]
        text = sets.lines([{"chosen": c, "rejected": r} for c, r in rows])
        sets.write(tmp_path, "hh_rlhf/test.jsonl.gz", gzip.compress(text.encode()))
        found = load_hh(tmp_path)
        assert len(found.rows) == 1 and [why.split(":")[0] for why in found.left_out] == ["line 2", "line 3", "line 4"]

    def test_shp(self, folder: Path) -> None:
        both = load_shp(folder).rows
        assert (both[0].chosen, both[1].chosen) == (sets.words(0, 2), sets.words(1, 1))
        assert both[0].family == "ask0" and both[0].entity == "p0"
        preferred = load_shp(folder, layout="re_control").rows
        assert preferred[2].chosen == sets.words(2, 9) and preferred[2].rejected == ""

    def test_forums_of_shp_have_each_post_once(self, tmp_path: Path) -> None:
        sets.shp_forums(tmp_path)
        found = load_shp_forums(tmp_path)
        assert len(found.rows) == 2 * len(SHP_FORUMS) == len({row.entity for row in found.rows})
        assert len(found.left_out) == len(SHP_FORUMS)
        assert found.left_out[0] == "askacademia, line 2: another pair of answers to an earlier post"
        row = found.rows[0]
        assert (row.chosen, row.rejected, row.family) == (sets.words(0, 2), sets.words(0, 1), "askacademia")
        # They lie where `steerlib fetch shp` brings them.
        places = {here for home in SOURCES["shp"].homes for _, here in home.files}
        assert {file.relative_to(tmp_path).as_posix() for file in found.files} <= places
        (tmp_path / "shp/askvet/validation.json").unlink()
        with pytest.raises(AbsentDataError, match=r"askvet/validation\.json.*steerlib fetch shp"):
            load_shp_forums(tmp_path, part="validation")

    def test_ultrafeedback(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from steerlib.data import preference

        file = sets.write(tmp_path, "ultrafeedback/test_prefs.parquet", "x")

        def row(prompt: str, chosen: float, rejected: float, messages: object) -> dict:
            scores = {"score_chosen": chosen, "score_rejected": rejected}
            return {"prompt": prompt, "chosen": messages, "rejected": messages, **scores}

        said = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "answer"}]
        rows = [row("p", 8, 5, said), row("q", 5, 5, said), row("p", 9, 1, said)]
        made = [Record(file, f"row {i}", r) for i, r in enumerate(rows, 1)]
        monkeypatch.setattr(preference, "read_parquet", lambda *_: made)
        found = load_ultrafeedback(tmp_path)
        assert [r.chosen for r in found.rows] == ["answer"] and len(found.left_out) == 2
        monkeypatch.setattr(preference, "read_parquet", lambda *_: [Record(file, "row 1", row("p", 8, 5, "text"))])
        with pytest.raises(DataError, match="row 1, field 'chosen': expected a list of messages"):
            load_ultrafeedback(tmp_path)

    def test_instructions(self, folder: Path) -> None:
        assert load_instructions(folder, harmful=True, part="train").rows[0].family == "topic"
        assert load_instructions(folder, harmful=False).rows[0].family == "harmless_test"
        assert load_advbench(folder).rows[3].target == sets.words(3, 6)
        red = load_red(folder).rows
        assert len(red) == 48 and {row.family for row in red} == {f"topic {t}" for t in range(6)}
        assert {row.family for row in load_red(folder, name="dangerousqa").rows} == {"dangerousqa"}

    def test_concepts_and_choices(self, folder: Path) -> None:
        assert load_concepts(folder).rows[0].lemma == "w90"
        row = load_mmlu(folder, part="val").rows[1]
        assert (row.subject, row.answer, row.options[3]) == ("first subject", 1, sets.words(1, 3))


def changed(file: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / file
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")

    return apply


@pytest.mark.parametrize(
    ("load", "break_it", "message"),
    [
        (load_truthfulqa, changed("truthfulqa/TruthfulQA.csv", lambda t: t.replace("Best", "Good", 1)),
         "line 1: column 'Best Answer' is missing"),
        (load_truthfulqa, changed("truthfulqa/mc_task.json", lambda t: json.dumps(json.loads(t)[1:])),
         "field 'Question': 'w62"),
        (load_truthfulqa, changed("truthfulqa/mc_task.json", lambda t: t.replace(": 1", ": 2", 1)),
         "field 'mc1_targets': expected answers, each with 1"),
        (load_truthfulqa, changed("truthfulqa/mc_task.json", lambda t: t.replace(': 0', ': 1', 1)),
         "field 'mc1_targets': got 2 true of 4, expected one"),
        (load_rtp, changed("decodingtrust_rtp/toxic.jsonl", lambda t: t.replace("0.5}", "1.5}", 1)),
         "line 1, in 'prompt', field 'toxicity': got 1.5, expected a number from 0 to 1"),
        (load_rtp, changed("decodingtrust_rtp/nontoxic.jsonl", lambda t: t.replace('"filename"', '"file"', 1)),
         "nontoxic.jsonl, line 1, field 'filename': missing"),
        (load_paradetox, changed("paradetox/paradetox.tsv", lambda t: t.replace("toxic\t", "rude\t", 1)),
         "column 'toxic' is missing"),
        (load_shp, changed("pref_ctrl_shp/test.json", lambda t: t.replace('"labels": 1', '"labels": 0', 1)),
         "line 2, field 'labels': got 0, but the scores are 4 and 3"),
        (lambda f: load_shp(f, layout="re_control"),
         changed("re_control/dataset_prefer.json", lambda t: json.dumps(json.loads(t)[1:])),
         "got 59 answers to the 60 posts"),
        (lambda f: load_instructions(f, harmful=True), changed("refusal/harmful_test.json",
         lambda t: t.replace("null", "7", 1)), "item 1, field 'category': got 7, expected text or null"),
        (load_advbench, changed("refusal/advbench.csv", lambda t: t.replace("target", "aim", 1)),
         "column 'target' is missing; expected goal, target, got goal, aim"),
        (load_red, changed("red_instruct/harmfulqa.json", lambda t: t.replace('"w', '7, "w', 1)),
         "topic 0, item 1, field 'question': got 7"),
        (load_red, changed("red_instruct/harmfulqa.json", lambda _: "{}"), "holds no question"),
        (load_red, changed("red_instruct/harmfulqa.json", lambda _: '{"a": {"b": {"c": []}}}'), "in 'a': got dict"),
        (load_concepts, changed("lqr_concepts/filtered_sentences.csv", lambda t: t.replace("w90.NOUN", "w90", 1)),
         "line 2, field 'concept': got 'w90', expected a lemma"),
        (load_mmlu, changed("mmlu/test/second_test.csv", lambda t: t.replace(",B\n", ",E\n", 1)),
         "field 'answer': got 'E', expected one of A, B, C, D"),
    ],
)  # fmt: skip
def test_malformed(tmp_path: Path, load: Callable, break_it: Callable, message: str) -> None:
    sets.everything(tmp_path)
    load(tmp_path)  # whole, it loads
    break_it(tmp_path)
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert message in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_conversation_must_take_turns(tmp_path: Path) -> None:
    text = sets.lines([{"chosen": "Hello", "rejected": "Hello"}])
    sets.write(tmp_path, "hh_rlhf/test.jsonl.gz", gzip.compress(text.encode()))
    with pytest.raises(DataError, match="line 1, field 'chosen': expected a conversation"):
        load_hh(tmp_path)


def test_absent_data_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AbsentDataError) as caught:
        load_truthfulqa(tmp_path)
    assert str(tmp_path / "truthfulqa/TruthfulQA.csv") in str(caught.value)
    assert "steerlib fetch truthfulqa" in str(caught.value)
    with pytest.raises(AbsentDataError, match="get it from https://www.kaggle.com"):
        load_jigsaw(tmp_path)
    sets.truthfulqa(tmp_path)
    monkeypatch.setenv("STEERLIB_DATA", str(tmp_path))
    assert load_truthfulqa().files[0].is_relative_to(tmp_path)


class TestSamples:
    """The samples of the real files, whose numbers of rows their README states."""

    @pytest.mark.parametrize(
        ("load", "rows"),
        [
            (load_truthfulqa, 817),
            (load_rtp, 1196 + 1200),
            (load_paradetox, 11_934),
            (load_hh, 2_312),
            (load_shp, 1_000),
            (lambda data: load_shp(data, layout="re_control"), 1_000),
            (lambda data: load_instructions(data, harmful=True, part="train"), 260),
            (lambda data: load_instructions(data, harmful=True, part="val"), 39),
            (lambda data: load_instructions(data, harmful=True), 572),
            (lambda data: load_instructions(data, harmful=False, part="val"), 6_264),
            (lambda data: load_instructions(data, harmful=False), 6_266),
            (load_advbench, 520),
            (load_red, 1_960),
            (lambda data: load_red(data, name="catqa_english"), 550),
            (lambda data: load_red(data, name="dangerousqa"), 200),
            (lambda data: load_red(data, name="adversarialqa"), 500),
            (load_concepts, 15_671),
        ],
    )
    def test_every_row_is_loaded_or_left_out(self, sample_data: Path, load: Callable, rows: int) -> None:
        found = load(sample_data)
        assert len(found.rows) + len(found.left_out) == rows
        assert len(found.left_out) < rows / 100

    def test_the_two_layouts_of_shp_agree(self, sample_data: Path) -> None:
        both = {row.entity: row for row in load_shp(sample_data).rows}
        for row in load_shp(sample_data, layout="re_control").rows:
            assert both[row.entity].chosen == row.chosen
