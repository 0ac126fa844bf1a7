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


def test_the_shipped_races_run_every_law_with_a_source_for_its_setting():
    race, feedback = (read_race(data_folder() / "races" / f"{name}.yml") for name in ("open_loop", "feedback"))
    used = {method.law for method in race.methods} | {"random-direction"}
    held = {method.law for method in feedback.methods}
    assert held == {"a-lqr", "pid-act", "s-pid"} and any(method.control for method in feedback.methods)
    later = {"re-control", "odesteer", "cbf"}
    assert used == set(LAWS) - held - later, "every law of part 2, and its control; values are part 3, barriers 5"
    assert {name for course in race.courses() for name in [course.name]} == {
        "truth", "toxicity", "preference", "refusal", "concept",
    }  # fmt: skip
    assert len({course.plant for course in race.courses()}) == 3
    for course in race.courses():
        assert (data_folder() / "plants" / course.plant).is_dir(), course.plant
    assert max(len(course.seeds) for course in race.courses()) == 5


@pytest.mark.parametrize("name", ["layers", "pairs"])
def test_the_shipped_sweeps_run_under_five_seeds_with_a_control_at_every_place(name):
    race = read_race(data_folder() / "races" / f"{name}.yml")
    (course,) = race.courses()
    methods = race.methods_of(course, depth=6, norms=dict.fromkeys(race.lengths(6), 1.0))
    real, control = ([m for m in methods if m.control is which] for which in (False, True))
    places = {(m.laws[0].layer, m.laws[0].fit.n) for m in real}
    assert {(m.laws[0].layer, m.laws[0].fit.n) for m in control} == places and len(places) >= 5
    assert len({m.laws[0].name for m in real}) >= 3 and len(course.seeds) == 5 and not race.own


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


def test_a_sweep_over_layers_has_a_method_for_each_block():
    method = MINI["methods"][0] | {"apart": True, "layers": [0.0, 0.5, 1.0]}
    shuffled = method | {"name": "luck", "labels": "shuffled", "control": True}
    race = plan(methods=[method, shuffled], control=None)
    found = race.methods_of(race.courses()[0], depth=5, norms={})
    assert [(one.name, one.control) for one in found] == [
        (f"{name}, block {block}", name == "luck") for name in ("push", "luck") for block in (0, 2, 4)
    ]
    for one in found:
        assert {law.layer for law in one.laws} == {int(one.name[-1])} and [x.strength for x in one.laws] == [0.5, 1.0]
        assert {law.fit.labels for law in one.laws} == {"shuffled" if one.control else "true"}
        assert len(places_of(one)) == 1


def test_a_sweep_over_examples_has_a_method_for_each_number():
    race = plan(methods=[MINI["methods"][0] | {"fits": [4, 40]}, MINI["methods"][1] | {"control": True}], control=None)
    few, many, probe = race.methods_of(race.courses()[0], depth=7, norms={"resid_post 3 choice": 20.0})
    assert [(one.name, {law.fit.n for law in one.laws}) for one in (few, many, probe)] == [
        ("push, 4 texts", {4}), ("push, 40 texts", {40}), ("probe", {10}),
    ]  # fmt: skip
    assert {law.layer for law in few.laws} == {0, 6}, "both blocks remain its candidates"


def test_what_a_race_may_leave_out_leaves_the_hash_of_older_ones_as_it_was():
    from steerlib.experiment.race_files import plan_hash

    told = plan(own=True, methods=[m | {"apart": False, "fits": [], "labels": "true"} for m in MINI["methods"]])
    assert plan_hash(told) == plan_hash(plan())
    assert plan_hash(plan(own=False)) != plan_hash(plan())
    dumped = plan().model_dump(mode="json")
    assert not {"own"} & set(dumped) and not {"apart", "fits", "labels", "control"} & set(dumped["methods"][0])


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
        ({"control": None}, "no method is a control"),
        ({"tasks": {"truth": {"task": "truth"}}}, "truth names no other behaviour"),
        ({"methods": [MINI["methods"][0] | {"fits": [4, 4]}]}, "expected each number once"),
        ({"methods": [MINI["methods"][0] | {"fits": [1]}]}, "greater than or equal to 2"),
        ({"methods": [MINI["methods"][0] | {"across": True, "apart": True}]}, "leave layers and apart out"),
        ({"methods": [MINI["methods"][0]] * 2}, "'push' comes twice"),
        ({"methods": [MINI["methods"][0] | {"law": "difference-of-modes"}]}, "Did you mean difference-of-means"),
        ({"methods": [MINI["methods"][0] | {"options": {"colour": 1}}]}, "an option of difference-of-means 'colour'"),
        ({"methods": [MINI["methods"][0] | {"choices": [{"angle": 1}]}]}, "an option of difference-of-means 'angle'"),
        ({"methods": [MINI["methods"][0] | {"strengths": [0.0, 1.0]}]}, "none zero"),
        ({"methods": [MINI["methods"][0] | {"strengths": [1.0, 1.0]}]}, "each once"),
        ({"methods": [MINI["methods"][0] | {"source": "me"}]}, "at least 20 characters"),
        ({"methods": [MINI["methods"][0] | {"layers": [1.5]}]}, "less than or equal to 1"),
        ({"methods": [MINI["methods"][0] | {"across": True, "layers": [0.5]}]}, "leave layers and apart out"),
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
