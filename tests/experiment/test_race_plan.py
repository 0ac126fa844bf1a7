"""Race files: what they ask for on a plant, and what is refused with a reason."""

from __future__ import annotations

import math

import pytest
import yaml

from steerlib.experiment.race_plan import RacePlan, RacePlanError, read_race
from steerlib.experiment.races import places_of
from steerlib.files import data_folder
from steerlib.registry import LAWS

SOURCE = "nowhere in particular, a toy"
MINI = {
    "about": "a toy",
    "layers": [0.0, 1.0],
    "fit": 10,
    "validation": 4,
    "test": 6,
    "budget": {"amount": 0.1},
    "tasks": {"truth": {"task": "truth", "kind": "exact", "other": {"task": "refusal"}}},
    "grounds": [{"plants": ["a", "b"], "tasks": ["truth"], "seeds": [3, 4]}],
    "control": "push",
    "methods": [
        {"name": "push", "law": "difference-of-means", "source": SOURCE, "strengths": [0.5, 1.0]},
        {"name": "probe", "law": "linear-probe", "source": SOURCE, "unit": "norm", "strengths": [0.1], "layers": [0.5]},
    ],
}


def plan(**change) -> RacePlan:
    return RacePlan.model_validate(MINI | change)


def written(tmp_path, raw):
    file = tmp_path / "race.yml"
    file.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw))
    return file


def test_the_shipped_race_runs_every_law_with_a_source_for_its_setting():
    race = read_race(data_folder() / "races" / "open_loop.yml")
    used = {method.law for method in race.methods} | {"random-direction"}
    assert used == set(LAWS) - {"re-control"}, "every law of part 2, and its control; values are part 3"
    assert {name for course in race.courses() for name in [course.name]} == {
        "truth", "toxicity", "preference", "refusal", "concept",
    }  # fmt: skip
    assert len({course.plant for course in race.courses()}) == 3
    for course in race.courses():
        assert (data_folder() / "plants" / course.plant).is_dir(), course.plant
    assert max(len(course.seeds) for course in race.courses()) == 5


def test_lengths_are_shares_of_the_norm_and_blocks_shares_of_the_depth():
    course = plan().courses()[0]
    assert plan().lengths(7) == {"resid_post 3 choice": ("resid_post", 3, "choice")}
    push, probe, *controls = plan().methods_of(course, depth=7, norms={"resid_post 3 choice": 20.0})
    assert [(law.layer, law.strength) for law in push.laws] == [(0, 0.5), (0, 1.0), (6, 0.5), (6, 1.0)]
    assert [(law.layer, law.strength) for law in probe.laws] == [(3, 2.0)]
    assert all(law.fit.n == 10 for law in push.laws)
    assert [len(control.laws) for control in controls] == [4, 4, 4], "controls choose as freely as their method"
    assert all(control.control for control in controls)
    random, shuffled, other = (control.laws[0] for control in controls)
    assert random.name == "random-direction" and shuffled.fit.labels == "shuffled" and other.fit.task == "refusal"


def test_a_law_across_all_blocks_is_fitted_in_turn_and_has_one_place():
    method = {"name": "push", "law": "mean-act", "source": SOURCE, "strengths": [0.5, 1.0], "across": True}
    race = plan(methods=[method])
    found = race.methods_of(race.courses()[0], depth=4, norms={})[0]
    assert [(law.layers, law.sequential, law.strength) for law in found.laws] == [("all", True, 0.5), ("all", True, 1)]
    assert len(places_of(found)) == 1


def test_choices_are_candidates_of_their_own_and_two_shares_of_one_block_are_one():
    push = MINI["methods"][0] | {"law": "angular-steering", "choices": [{"angle": 0}, {"angle": 90}], "strengths": [1]}
    race = plan(methods=[push], layers=[0.5, 0.55])
    found = race.methods_of(race.courses()[0], depth=3, norms={})[0]
    assert [(law.layer, law.options["angle"]) for law in found.laws] == [(1, 0), (1, 90)]


def test_courses_are_asked_for_by_plant_or_title():
    race = plan()
    assert [course.title for course in race.courses()] == ["a/truth", "b/truth"]
    assert [course.title for course in race.courses(["b"])] == ["b/truth"]
    assert race.courses(["a/truth"])[0].seeds == (3, 4)
    with pytest.raises(RacePlanError, match="got course 'a/truht'.*Did you mean a/truth"):
        race.courses(["a/truht"])


@pytest.mark.parametrize("norms", [{}, {"resid_post 3 choice": math.nan}])
def test_a_length_without_a_norm_is_refused(norms):
    with pytest.raises(RacePlanError, match="a/truth: no norm of the states at resid_post 3 choice"):
        plan().methods_of(plan().courses()[0], depth=7, norms=norms)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"control": "pull"}, "control: got method 'pull'"),
        ({"methods": [MINI["methods"][0]] * 2}, "'push' comes twice"),
        ({"methods": [MINI["methods"][0] | {"law": "difference-of-modes"}]}, "Did you mean difference-of-means"),
        ({"methods": [MINI["methods"][0] | {"options": {"colour": 1}}]}, "an option of difference-of-means 'colour'"),
        ({"methods": [MINI["methods"][0] | {"choices": [{"angle": 1}]}]}, "an option of difference-of-means 'angle'"),
        ({"methods": [MINI["methods"][0] | {"strengths": [0.0, 1.0]}]}, "none zero"),
        ({"methods": [MINI["methods"][0] | {"strengths": [1.0, 1.0]}]}, "each once"),
        ({"methods": [MINI["methods"][0] | {"source": "me"}]}, "at least 20 characters"),
        ({"methods": [MINI["methods"][0] | {"layers": [1.5]}]}, "less than or equal to 1"),
        ({"methods": [MINI["methods"][0] | {"across": True, "layers": [0.5]}]}, "leave layers out"),
        ({"grounds": [{"plants": ["a"], "tasks": ["trut"], "seeds": [0]}]}, "Did you mean truth"),
        ({"grounds": [{"plants": ["a"], "tasks": ["truth"], "seeds": [0, 0]}]}, "expected each once"),
        ({"choose_on": 3}, "at least 3"),
        ({"grounds": MINI["grounds"] * 2}, "a/truth comes twice"),
        ({"tasks": {"truth": {"task": "truth", "other": {"task": "truth"}}}}, "got the task itself"),
        ({"tasks": {"truth": {"task": "troth", "other": {"task": "truth"}}}}, "got task 'troth'"),
        ({"budget": {"amount": 0}}, "greater than 0"),
        ({"keeep": 1}, "Extra inputs"),
    ],
)
def test_what_makes_no_race_is_refused_by_name(tmp_path, change, message):
    file = written(tmp_path, MINI | change)
    with pytest.raises(RacePlanError, match=message) as caught:
        read_race(file)
    assert str(file) in str(caught.value)


def test_files_that_are_no_race(tmp_path):
    with pytest.raises(RacePlanError, match="no such file"):
        read_race(tmp_path / "none.yml")
    with pytest.raises(RacePlanError, match="not YAML"):
        read_race(written(tmp_path, "a: [1"))
    with pytest.raises(RacePlanError, match="expected a race"):
        read_race(written(tmp_path, {"blocks": []}))
