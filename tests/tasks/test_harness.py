"""A plant as a model of lm-evaluation-harness: the numbers by hand, and the interface against a stand-in of it."""

from __future__ import annotations

import abc
import random
import sys
import types
from typing import Any

import numpy as np
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
        logits = plant.forward(plant._pad([list(range(3, 90)[-64:])]))[0, -1].double()  # all that it can read
        assert log == pytest.approx(float(logits.log_softmax(-1)[9]), abs=1e-4)

    def test_a_continuation_may_be_as_long_as_what_the_plant_reads(self, plant: Plant) -> None:
        ids = [3 + (5 * i) % 90 for i in range(64)]
        ((log, _),) = Answers(plant).loglikelihood([(words(50, 51), "".join(f" w{i}" for i in ids))])
        logs = plant.forward(plant._pad([[51, *ids[:-1]]]))[0].double().log_softmax(-1)
        assert log == pytest.approx(float(logs[torch.arange(64), torch.tensor(ids)].sum()), abs=1e-3)

    @pytest.mark.parametrize(("continuation", "message"), [("", "gives no token"), (" w5" * 65, "65 tokens, but")])
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
    @pytest.mark.parametrize("length", [1, 63, 64, 65, 100, 128, 129])
    def test_every_token_is_predicted_once(self, plant: Plant, length: int) -> None:
        ids = [3 + (7 * i) % 94 for i in range(length)]
        (found,) = Answers(plant).loglikelihood_rolling([words(*ids)])
        # By hand, for a plant that reads 64 tokens: each pass gets the 64 tokens before the last one that it predicts,
        # and of what it predicts only that counts which no pass before has predicted.
        row, total, done = [1, *ids], 0.0, 0
        while done < length:
            end = min(done + 64, length)
            read = row[max(0, end - 64) : end]
            logs = plant.forward(plant._pad([read]))[0].double().log_softmax(-1)[done - end :]
            total += float(logs[torch.arange(end - done), torch.tensor(ids[done:end])].sum())
            done = end
        assert found == pytest.approx(total, abs=1e-3)

    def test_nothing_is_certain(self, plant: Plant) -> None:
        assert Answers(plant).loglikelihood_rolling(["", words(5)])[0] == 0

    def test_a_first_token_that_the_tokenizer_adds_is_not_predicted(self, plant: Plant) -> None:
        class Adding(Answers):
            def _tokens(self, text: str) -> list[int]:
                return [self.first, *super()._tokens(text)]

        plain, adding = Answers(plant), Adding(plant)
        assert adding.loglikelihood_rolling([words(5, 6)]) == plain.loglikelihood_rolling([words(5, 6)])
        assert adding.loglikelihood([("", "w7")]) == plain.loglikelihood([("", "w7")])


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

    def test_a_short_context_reaches_the_plant_as_it_is(self, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []
        generate = plant.generate
        monkeypatch.setattr(plant, "generate", lambda texts, **how: asked.extend(texts) or generate(texts, **how))
        Answers(plant).generate_until([("w5  w6", {"max_gen_toks": 2})])
        assert asked == ["w5  w6"], "decoding its tokens would have lost a space"

    def test_many_are_answered_in_batches_and_in_order(self, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = [(words(*range(5, 6 + i % 4)), {"max_gen_toks": 3 + i % 2}) for i in range(9)]
        single = [Answers(plant).generate_until([one])[0] for one in asked]
        sizes: list[int] = []
        generate = plant.generate
        monkeypatch.setattr(plant, "generate", lambda texts, **how: sizes.append(len(texts)) or generate(texts, **how))
        assert Answers(plant, batch_size=4).generate_until(asked) == single
        assert sorted(sizes) == [1, 4, 4]

    @pytest.mark.parametrize("name", ["max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"])
    def test_a_number_of_tokens_goes_by_many_names(self, plant: Plant, name: str) -> None:
        (text,) = Answers(plant).generate_until([(words(5), {name: 5, "num_beams": 1, "until": None})])
        assert len(text.split()) == 5

    @pytest.mark.parametrize(
        ("how", "temperature"),
        [({}, 0), ({"temperature": 0.7}, 0.7), ({"temperature": 0.7, "do_sample": False}, 0), ({"temperature": 0}, 0),
         ({"do_sample": True}, 1), ({"do_sample": True, "temperature": 0.0}, 0)],
    )  # fmt: skip
    def test_what_is_sampled_and_how_hot(
        self, plant: Plant, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], temperature: float
    ) -> None:
        asked: list[float] = []
        generate = plant.generate
        monkeypatch.setattr(
            plant, "generate", lambda texts, **told: asked.append(told["temperature"]) or generate(texts, **told)
        )
        Answers(plant).generate_until([(words(5), {"max_gen_toks": 2, **how})])
        assert asked == [temperature]

    def test_without_a_number_half_of_what_the_plant_reads_is_left(
        self, plant: Plant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[int, int]] = []
        generate = plant.generate
        monkeypatch.setattr(
            plant,
            "generate",
            lambda texts, **told: (
                asked.append((len(texts[0].split()), told["max_new_tokens"])) or generate(texts, **told)
            ),
        )
        Answers(plant).generate_until([(words(*range(3, 90)), {})])
        assert asked == [(32, 32)]

    @pytest.mark.parametrize(
        ("how", "message"),
        [
            ({"num_beams": 4}, "got num_beams=4, which a plant does not know"),
            ({"max_gen_toks": 64}, "got 64 new tokens, expected at least 1 and fewer than 64"),
            ({"max_gen_toks": 0}, "got 0 new tokens"),
        ],
    )
    def test_refused(self, plant: Plant, how: dict[str, Any], message: str) -> None:
        with pytest.raises(HarnessError, match=message):
            Answers(plant).generate_until([(words(5), how)])


class TestInterface:
    def test_absent(self, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
        def gone(name: str) -> None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])

        monkeypatch.setattr(harness.importlib, "import_module", gone)
        with pytest.raises(HarnessError, match=r"pip install 'steerlib\[harness\]'"):
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

        def simple_evaluate(
            *, model: LM, tasks: list[str], limit: int, num_fewshot: int, task_manager: Any, log_samples: bool
        ) -> dict:
            assert isinstance(model, LM) and task_manager is None and not log_samples
            torch.manual_seed(1234)
            random.seed(0)
            np.random.seed(1234)

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
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
        choices, rolling, texts, limit, shots = evaluate(plant, ["mmlu"], limit=7, shots=5)["mmlu"]
        after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
        assert torch.equal(before[0], after[0]) and before[1:] == after[1:], "the harness seeds; the caller's stay"
        assert choices == Answers(plant).loglikelihood([(words(5, 6), " w7"), (words(5, 6), " w8")])
        assert len(rolling) == len(texts) == 1 and (limit, shots) == (7, 5)
