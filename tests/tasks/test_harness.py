"""A plant as a model of lm-evaluation-harness: the numbers by hand, and the interface against a stand-in of it."""

from __future__ import annotations

import abc
import sys
import types
from typing import Any

import pytest
import torch

from steerlib.laws.additive import Additive
from steerlib.plant import Plant
from steerlib.tasks.real import harness
from steerlib.tasks.real.harness import Answers, HarnessError, evaluate, harness_model
from tests import families
from tests.families import words


@pytest.fixture(scope="module")
def plant() -> Plant:
    return families.plant("llama")


class TestLikelihood:
    def test_agrees_with_the_plant(self, plant: Plant) -> None:
        asked = [(words(5, 6), " w7"), (words(5, 6, 7, 8), " w9 w10 w11"), (words(9), " w3")] * 3
        found = Answers(plant, batch_size=2).loglikelihood(asked)
        wanted = plant.logprobs([a for a, _ in asked], [b for _, b in asked])
        assert [log for log, _ in found] == pytest.approx(wanted.tolist(), abs=1e-4)

    def test_greedy_is_what_greedy_decoding_gives(self, plant: Plant) -> None:
        context = words(5, 6, 7)
        best = plant.generate([context], max_new_tokens=2, seed=0, temperature=0).texts[0]
        other = " ".join([best.split()[0], "w5" if best.split()[1] != "w5" else "w6"])
        assert [ok for _, ok in Answers(plant).loglikelihood([(context, best), (context, f" {other}")])] == [
            True,
            False,
        ]

    def test_space_at_the_end_of_a_context_goes_over(self, plant: Plant) -> None:
        plain, spaced = Answers(plant).loglikelihood([(words(5, 6), " w7"), (words(5, 6) + " ", "w7")])
        assert plain == spaced

    def test_no_context_stands_after_the_first_token(self, plant: Plant) -> None:
        ((log, _),) = Answers(plant).loglikelihood([("", "w7")])
        logits = plant.forward(plant._pad([[1]]))[0, -1].double()
        assert log == pytest.approx(float(logits.log_softmax(-1)[7]), abs=1e-5)

    def test_a_long_context_loses_its_beginning(self, plant: Plant) -> None:
        long = words(*range(3, 90))
        ((log, _),) = Answers(plant).loglikelihood([(long, " w9")])
        kept = words(*range(3, 90)[-63:])
        assert log == pytest.approx(float(plant.logprobs([kept], [" w9"])), abs=1e-4)

    @pytest.mark.parametrize(("continuation", "message"), [("", "gives no token"), (" w5" * 64, "64 tokens, but")])
    def test_refused(self, plant: Plant, continuation: str, message: str) -> None:
        with pytest.raises(HarnessError, match=message):
            Answers(plant).loglikelihood([(words(5), continuation)])

    def test_a_law_acts_on_it(self, plant: Plant) -> None:
        asked = [(words(5, 6), " w7 w8")]
        answers = Answers(plant)
        bare = answers.loglikelihood(asked)[0][0]
        law = Additive(torch.linspace(-1, 1, plant.width), strength=3.0)
        with plant.under(law, layer=1):
            pushed = answers.loglikelihood(asked)[0][0]
            wanted = float(plant.logprobs([words(5, 6)], [" w7 w8"]))
        assert abs(pushed - bare) > 1e-3 and pushed == pytest.approx(wanted, abs=1e-4)


class TestRolling:
    def test_every_token_is_predicted_once(self, plant: Plant) -> None:
        ids = [3 + (7 * i) % 94 for i in range(100)]
        (found,) = Answers(plant).loglikelihood_rolling([words(*ids)])
        # By hand: windows of 63 predicted tokens, each after the token before it (the first after <bos>).
        total = 0.0
        for start in (0, 63):
            row = [1 if start == 0 else ids[start - 1], *ids[start : start + 63]]
            logs = plant.forward(plant._pad([row]))[0, :-1].double().log_softmax(-1)
            total += float(logs[torch.arange(len(row) - 1), torch.tensor(row[1:])].sum())
        assert found == pytest.approx(total, abs=1e-3)


class TestGeneration:
    def test_greedy_up_to_a_stop(self, plant: Plant) -> None:
        context = words(5, 6)
        whole = plant.generate([context], max_new_tokens=8, seed=0, temperature=0).texts[0]
        stop = whole.split()[3]
        asked = [
            (context, {"max_gen_toks": 8}),
            (context, {"max_gen_toks": 8, "until": [f" {stop}"], "do_sample": False}),
        ]
        plain, cut = Answers(plant).generate_until(asked)
        assert plain == whole and cut == whole.partition(f" {stop}")[0] != whole

    def test_sampled(self, plant: Plant) -> None:
        how = {"max_gen_toks": 8, "do_sample": True, "temperature": 2.0, "until": "<none>"}
        first, again = (Answers(plant, seed=s).generate_until([(words(5, 6), how)]) for s in (1, 1))
        assert first == again != Answers(plant, seed=2).generate_until([(words(5, 6), how)])

    def test_a_long_context_leaves_room(self, plant: Plant) -> None:
        (text,) = Answers(plant).generate_until([(words(*range(3, 90)), {"max_gen_toks": 10})])
        assert text

    def test_an_unknown_argument(self, plant: Plant) -> None:
        with pytest.raises(HarnessError, match="got num_beams, which a plant does not know"):
            Answers(plant).generate_until([(words(5), {"num_beams": 4})])


class TestInterface:
    def test_absent(self, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
        def gone(name: str) -> None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])

        monkeypatch.setattr(harness.importlib, "import_module", gone)
        with pytest.raises(HarnessError, match="pip install 'lm-eval'"):
            harness_model(plant)

    def test_a_missing_part_of_it_is_not_called_absence(self, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(_: str) -> None:
            raise ModuleNotFoundError("No module named 'sqlitedict'", name="sqlitedict")

        monkeypatch.setattr(harness.importlib, "import_module", broken)
        with pytest.raises(ModuleNotFoundError, match="sqlitedict"):
            harness_model(plant)

    def test_it_is_a_model_of_the_harness(self, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
        class LM(abc.ABC):
            """The abstract methods of lm_eval.api.model.LM, as its source documents them."""

            def __init__(self) -> None:
                self._rank, self._world_size = 0, 1

            @abc.abstractmethod
            def loglikelihood(self, requests: Any) -> Any: ...

            @abc.abstractmethod
            def loglikelihood_rolling(self, requests: Any) -> Any: ...

            @abc.abstractmethod
            def generate_until(self, requests: Any) -> Any: ...

        def simple_evaluate(*, model: LM, tasks: list[str], limit: int | None, num_fewshot: int | None) -> dict:
            assert isinstance(model, LM)

            def requests(*asked: tuple) -> list:
                return [types.SimpleNamespace(args=args) for args in asked]

            choices = model.loglikelihood(requests((words(5, 6), " w7"), (words(5, 6), " w8")))
            rolling = model.loglikelihood_rolling(requests((words(5, 6),)))
            texts = model.generate_until(requests((words(5), {"until": ["\n"], "max_gen_toks": 3})))
            return {"results": {tasks[0]: (choices, rolling, texts, limit, num_fewshot)}}

        package, api, part = (types.ModuleType(name) for name in ("lm_eval", "lm_eval.api", "lm_eval.api.model"))
        part.LM, package.simple_evaluate = LM, simple_evaluate  # type: ignore[attr-defined]
        for module in (package, api, part):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        choices, rolling, texts, limit, shots = evaluate(plant, ["mmlu"], limit=7, shots=5)["mmlu"]
        assert choices == Answers(plant).loglikelihood([(words(5, 6), " w7"), (words(5, 6), " w8")])
        assert len(rolling) == len(texts) == 1 and (limit, shots) == (7, 5)
