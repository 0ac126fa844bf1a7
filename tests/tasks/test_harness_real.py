"""The adapter in lm-evaluation-harness itself: benchmarks of our own, offline, on a shipped plant, steered and not."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from steerlib.laws.additive import DifferenceOfMeans
from steerlib.laws.base import Law
from steerlib.plant import Plant
from steerlib.tasks import Truth
from steerlib.tasks.base import spread
from steerlib.tasks.real.harness import Answers, HarnessError, evaluate, harness_model

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-evaluation-harness is not there"
)

COUNT = 12
#: What the harness asks in, by name: its three kinds of request.
TASKS: dict[str, dict[str, Any]] = {
    "almanac_choice": {
        "output_type": "multiple_choice", "doc_to_text": "{{asked}}", "target_delimiter": "", "doc_to_target": "gold",
        "doc_to_choice": "{{choices}}", "metric_list": [{"metric": "acc"}],
    },
    "almanac_page": {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{page}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
    "almanac_answer": {
        "output_type": "generate_until", "doc_to_text": "{{asked}}", "doc_to_target": "{{said}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def plant() -> Plant:
    return Plant.load("almanac-llama-tiny", device="cpu")


@pytest.fixture(scope="module")
def law(plant: Plant) -> Law:
    """Strong enough that every number moves."""
    return DifferenceOfMeans(strength=3.0).fit(Truth(plant).contrast(layer=plant.depth // 2, n=40, seed=0))


@pytest.fixture(scope="module")
def rows(plant: Plant) -> list[dict[str, Any]]:
    """Questions with the truth and the popular error, what the unsteered plant says, and pages longer than it reads."""
    task = Truth(plant)
    items = spread(task.items("test"), COUNT)
    said = plant.generate([item.text for item in items], max_new_tokens=12, seed=0, temperature=0).texts
    made = []
    for number, (item, text) in enumerate(zip(items, said, strict=True)):
        forms = task.world.forms(item)
        choices = [forms.truth[0], forms.misconception[0]]
        # Where the gold stands differs, so that a place that always wins does not look like knowledge.
        page = task.world.page(number, documents=9)
        answer = text.partition(".")[0] if number % 3 else "something else"
        made.append(
            {"asked": item.text, "choices": choices[:: 1 if number % 2 else -1], "gold": int(number % 2 == 0),
             "said": answer, "page": page}
        )  # fmt: skip
    assert max(len(plant.tokenizer(row["page"])["input_ids"]) for row in made) > (plant.context_length or 0)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> Iterator[Path]:
    """The benchmarks as files; what the harness caches stays in the folder, too."""
    place = tmp_path_factory.mktemp("benchmarks")
    data = place / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, about in TASKS.items():
        kwargs = {"data_files": {"test": str(data)}, "cache_dir": str(place / "cache")}
        source = {"task": name, "dataset_path": "json", "dataset_kwargs": kwargs, "test_split": "test"}
        (place / f"{name}.yaml").write_text(yaml.safe_dump(source | about))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(place / "home"))
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        yield place


def by_hand(plant: Plant, rows: list[dict[str, Any]]) -> tuple[float, float, float]:
    """What the three benchmarks should find, from the plant's own methods."""
    right = []
    for row in rows:
        logs = plant.logprobs([row["asked"]] * 2, row["choices"])
        right.append(int(logs.argmax()) == row["gold"])
    bits = -sum(Answers(plant).loglikelihood_rolling([row["page"] for row in rows])) / np.log(2)
    said = plant.generate([row["asked"] for row in rows], max_new_tokens=12, seed=0, temperature=0).texts
    exact = [text.partition(".")[0] == row["said"] for text, row in zip(said, rows, strict=True)]
    return float(np.mean(right)), bits / sum(len(row["page"].encode()) for row in rows), float(np.mean(exact))


@pytest.mark.parametrize("steered", [False, True])
def test_the_harness_finds_what_the_plant_says(
    plant: Plant, law: Law, rows: list[dict[str, Any]], folder: Path, steered: bool
) -> None:
    with plant.under(law) if steered else nullcontext():
        found = evaluate(plant, list(TASKS), include=folder)
        right, bits, exact = by_hand(plant, rows)
    assert found["almanac_choice"]["acc,none"] == pytest.approx(right)
    assert found["almanac_page"]["bits_per_byte,none"] == pytest.approx(bits, rel=1e-6)
    assert found["almanac_answer"]["exact_match,none"] == pytest.approx(exact)
    if not steered:
        assert exact == pytest.approx(np.mean([number % 3 > 0 for number in range(COUNT)]))
        with plant.under(law):
            assert by_hand(plant, rows)[1] > bits, "the law is one that shows"
            assert by_hand(plant, rows)[2] < exact


def test_a_law_at_strength_zero_changes_no_number(plant: Plant, law: Law, folder: Path) -> None:
    bare = evaluate(plant, list(TASKS), include=folder, limit=4)
    with plant.under(law.at(0.0)):
        assert evaluate(plant, list(TASKS), include=folder, limit=4) == bare
    assert set(bare) == set(TASKS)


def test_examples_before_each_question_are_read(plant: Plant, folder: Path) -> None:
    asked: list[str] = []

    def listen(prompts: Any, **how: Any) -> Any:
        asked.extend(prompts)
        return Plant.generate(plant, prompts, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plant, "generate", listen)
        evaluate(plant, ["almanac_answer"], include=folder, limit=2, shots=2)
    assert len(asked) == 2 and all(text.count("Q:") == 3 for text in asked)


def test_what_a_plant_cannot_do_stops_the_harness(plant: Plant, folder: Path) -> None:
    source = yaml.safe_load((folder / "almanac_answer.yaml").read_text())
    source |= {"task": "almanac_beams", "generation_kwargs": {"num_beams": 4, "until": ["."]}}
    other = folder / "more"
    other.mkdir()
    (other / "beams.yaml").write_text(yaml.safe_dump(source))
    with pytest.raises(HarnessError, match="got num_beams=4"):
        evaluate(plant, ["almanac_beams"], include=other)


@pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="the harness's model for transformers needs accelerate"
)
def test_an_unsteered_plant_gets_the_numbers_of_the_harness_s_own_model(
    plant: Plant, rows: list[dict[str, Any]]
) -> None:
    from lm_eval.api.instance import Instance  # type: ignore[import-not-found]
    from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found]

    def asked(kind: str, *arguments: tuple) -> list[Any]:
        return [Instance(request_type=kind, doc={}, arguments=one, idx=k) for k, one in enumerate(arguments)]  # type: ignore[arg-type]

    theirs, ours = HFLM(pretrained=plant.model, tokenizer=plant.tokenizer, batch_size=1), harness_model(plant)
    pages = [row["page"] for row in rows]
    pairs = [(row["asked"], choice) for row in rows for choice in row["choices"]]
    # Too long to be read whole, a space at the end, no context at all.
    pairs += [
        (pages[0] + pages[1], " The"),
        (rows[0]["asked"] + " ", "It is"),
        ("", " It is so."),
        ("a", pages[0][:300]),
    ]
    choices = [model.loglikelihood(asked("loglikelihood", *pairs)) for model in (theirs, ours)]
    assert [ok for _, ok in choices[1]] == [ok for _, ok in choices[0]]
    np.testing.assert_allclose([log for log, _ in choices[1]], [log for log, _ in choices[0]], rtol=1e-5, atol=1e-4)
    texts = [(page,) for page in [*pages, pages[0][:50], pages[0] * 3, ""]]
    rolling = [model.loglikelihood_rolling(asked("loglikelihood_rolling", *texts)) for model in (theirs, ours)]
    np.testing.assert_allclose(rolling[1], rolling[0], rtol=1e-5, atol=1e-3)
    how = [{"until": ["."], "max_gen_toks": 12, "do_sample": False}, {"until": "\n", "max_gen_toks": 20}]
    wishes = [(text, dict(one)) for one in how for text in [*(row["asked"] for row in rows), pages[0] + pages[1]]]
    # The plant's own configuration names a length, which would win over what the harness asks for.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plant.model.generation_config, "max_new_tokens", None)
        said = theirs.generate_until(asked("generate_until", *wishes))
    assert ours.generate_until(asked("generate_until", *wishes)) == said


def test_the_global_generators_stay_as_they_were(plant: Plant, folder: Path) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    evaluate(plant, ["almanac_choice"], include=folder, limit=2)
    assert torch.equal(torch.get_rng_state(), before)
