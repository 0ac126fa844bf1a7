"""Loading, refusing, running: the plant without steering."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from steerlib.errors import PlantError
from steerlib.loading import check_loadable, shipped_plants, weight_hash
from steerlib.plant import Plant
from tests.families import FAMILIES, model, plant, tokenizer, words

PROMPTS = [words(5, 9, 30, 41, 8, 77), words(60, 3), words(12, 13, 14, 15)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete small plant on disk."""
    target = tmp_path / "a plant"
    model("llama").save_pretrained(target)
    tokenizer().save_pretrained(target)
    return target


class TestLoading:
    """What can be loaded, and what is refused before anything is loaded."""

    def test_a_folder_loads_and_keeps_its_weights(self, folder: Path) -> None:
        p = Plant.load(str(folder))
        assert (p.name, p.depth, p.width) == ("a plant", 3, 32)
        assert p.weight_hash == weight_hash(model("llama"))
        assert p.weight_hash != weight_hash(model("llama", seed=1))

    @pytest.mark.parametrize("name", shipped_plants())
    def test_every_shipped_plant_loads(self, name: str) -> None:
        p = Plant.load(name)
        assert p.name == name
        assert p.generate(["Q: What is"], max_new_tokens=2, seed=0).texts[0]

    def test_nothing_of_that_name(self) -> None:
        with pytest.raises(PlantError, match="no such folder.*Expected a folder that exists, a hub id"):
            Plant.load("no-such-plant")
        with pytest.raises(PlantError, match="no such folder"):
            check_loadable("./also/not/here")

    def test_not_a_causal_language_model(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        for change in ({"model_type": "vit"}, {"architectures": ["LlamaForSequenceClassification"]}):
            (folder / "config.json").write_text(json.dumps({**config, **change}))
            with pytest.raises(PlantError, match="expected a causal language model"):
                check_loadable(str(folder))

    def test_pickles_are_never_read(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
        with pytest.raises(PlantError, match=r"only pickles \(pytorch_model.bin\).*save_pretrained"):
            Plant.load(str(folder))
        with pytest.raises(PlantError, match="got a pickle"):
            Plant.load(str(folder / "pytorch_model.bin"))

    def test_missing_parts_are_named(self, folder: Path) -> None:
        (folder / "tokenizer.json").rename(folder / "elsewhere.json")
        with pytest.raises(PlantError, match="no tokenizer"):
            Plant.load(str(folder))
        (folder / "model.safetensors").unlink()
        with pytest.raises(PlantError, match="no weights; expected"):
            Plant.load(str(folder))
        (folder / "config.json").unlink()
        with pytest.raises(PlantError, match="no config.json"):
            Plant.load(str(folder))

    def test_truncated_files_are_named(self, folder: Path) -> None:
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:100])
        with pytest.raises(PlantError, match=r"model\.safetensors cannot be read"):
            Plant.load(str(folder))
        (folder / "config.json").write_text("{")
        with pytest.raises(PlantError, match=r"config\.json is not JSON"):
            Plant.load(str(folder))

    def test_a_card_must_describe_the_weights(self, folder: Path) -> None:
        (folder / "card.json").write_text(json.dumps({"weights_sha256": "0" * 64}))
        with pytest.raises(PlantError, match="but its card says 000000000000"):
            Plant.load(str(folder))

    def test_no_network_is_said_plainly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub.constants

        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(PlantError, match="could not be fetched from the hub.*local folder"):
            Plant.load("nobody/no-such-model")

    def test_a_missing_pad_token_falls_back_with_a_note(self, folder: Path) -> None:
        bare = tokenizer()
        p = Plant.from_model(model("llama"), type(bare)(tokenizer_object=bare.backend_tokenizer, eos_token="<eos>"))
        assert p.pad_id == 2
        assert "no padding token" in p.notes[0]
        torch.testing.assert_close(p.forward(PROMPTS)[0, -1], plant("llama").forward(PROMPTS)[0, -1])


class TestRunning:
    """Passes, probabilities and generation."""

    @pytest.mark.parametrize("family", FAMILIES)
    def test_logprobs_are_those_of_single_passes(self, family: str) -> None:
        p = plant(family)
        answers = [" " + words(21, 34), " " + words(55), " " + words(89, 90, 91)]
        got = p.logprobs(PROMPTS, answers, batch_size=2)
        for prompt, answer, value in zip(PROMPTS, answers, got.tolist(), strict=True):
            head, whole = p.encode([prompt]).input_ids, p.encode([prompt + answer]).input_ids
            with torch.inference_mode():
                logs = p.model(whole).logits[0].float().log_softmax(-1)
            expected = sum(float(logs[t - 1, whole[0, t]]) for t in range(head.shape[1], whole.shape[1]))
            assert value == pytest.approx(expected, abs=2e-4)

    def test_probabilities_of_all_next_tokens_sum_to_one(self) -> None:
        p = plant("llama")
        every = [f" w{i}" for i in range(3, 97)]
        total = p.logprobs([PROMPTS[1]] * len(every), every).exp().sum()
        rest = p.forward([PROMPTS[1]])[0, -1].softmax(-1)[:3].sum()
        assert float(total + rest) == pytest.approx(1.0, abs=1e-5)

    def test_greedy_generation_is_the_models_own(self) -> None:
        p = plant("gpt_neox")
        answers = p.generate(PROMPTS, max_new_tokens=5, seed=0, temperature=0).tokens
        for prompt, tokens in zip(PROMPTS, answers, strict=True):
            ids = p.encode([prompt]).input_ids
            own = p.model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
            assert list(tokens) == own[: len(tokens)]

    def test_caches_and_compiled_code_give_the_same_answers(self) -> None:
        p = plant("llama")
        wanted = p.generate(PROMPTS, max_new_tokens=6, seed=3).tokens
        assert p.generate(PROMPTS, max_new_tokens=6, seed=3, cache="static").tokens == wanted
        assert p.generate(PROMPTS, max_new_tokens=6, seed=3, cache="none").tokens == wanted
        assert p.generate(PROMPTS, max_new_tokens=6, seed=3, cache="static", compile="eager").tokens == wanted
        assert "forward" not in vars(p.model), "generation must leave the model's forward as it was"

    def test_answers_end_at_the_end_token(self) -> None:
        p = plant("llama")
        with p.under(lambda s: s * 0 + p.model.lm_head.weight[2] * 100, layer=-1, point="final_norm"):
            out = p.generate([PROMPTS[0]], max_new_tokens=5, seed=0, temperature=0)
        assert out.tokens == ((2,),)
        assert out.texts == ("",)

    def test_answers_keep_their_leading_space(self) -> None:
        out = plant("llama").generate(PROMPTS, max_new_tokens=3, seed=0)
        assert all(text.startswith(" ") or not text for text in out.texts)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_new_tokens": 0}, "max_new_tokens: got 0"),
            ({"temperature": -1.0}, "temperature: got -1.0"),
            ({"top_k": 0}, "top_k: got 0"),
            ({"top_p": 1.5}, "top_p: got 1.5"),
            ({"samples": 0}, "samples: got 0"),
            ({"batch_size": 0}, "batch_size: got 0"),
            ({"cache": "paged"}, "expected dynamic, static or none"),
            ({"compile": "eager"}, "needs cache='static'"),
        ],
    )
    def test_arguments_out_of_range(self, options: dict, message: str) -> None:
        with pytest.raises(PlantError, match=message):
            plant("llama").generate(PROMPTS, **{"max_new_tokens": 2, "seed": 0, **options})

    def test_texts_that_cannot_be_read(self) -> None:
        p = plant("llama")
        with pytest.raises(TypeError, match="expected a list of strings"):
            p.encode("one string")
        with pytest.raises(PlantError, match="empty list"):
            p.encode([])
        with pytest.raises(PlantError, match="number 1 gives no token"):
            p.encode(["w5", ""])
        with pytest.raises(PlantError, match="reads at most 64"):
            p.encode([words(*[5] * 65)])
        with pytest.raises(PlantError, match="2 prompts and 1 continuations"):
            p.logprobs(PROMPTS[:2], [" w5"])
        with pytest.raises(PlantError, match="share a token"):
            p.logprobs(["w5 w"], ["6"])


def test_a_gpu_is_used_where_there_is_one() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    assert Plant.load(shipped_plants()[0]).device.type == "cuda"


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_compiled_passes_count_positions_over_real_tokens(family: str) -> None:
    """Where positions are absolute, padding shows in every token if it is counted."""
    p = plant(family)
    texts = [words(5, 9, 30, 41, 8, 77), words(60, 3), words(12, 13, 14, 15)]
    options = {"max_new_tokens": 5, "seed": 0, "temperature": 0.0}
    compiled = p.generate(texts, **options, cache="static", compile="eager")
    assert compiled.tokens == p.generate(texts, **options).tokens
