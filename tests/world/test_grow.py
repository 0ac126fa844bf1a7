"""Growing a plant: the same weights whatever happens on the way, and plain words where it cannot be."""

import errno
import json
import signal

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from steerlib.files import sha256
from steerlib.world import checkpoint
from steerlib.world import grow as growing
from steerlib.world.checkpoint import GrowthError, load_checkpoint, save_checkpoint
from steerlib.world.grow import PLANTS, GrowthInterrupted, NoisyBlock, build_model, grow, noisy, short_sighted
from steerlib.world.plants import Recipe

TOY = "almanac-seedling"


def weights(folder):
    return sha256(folder / "model.safetensors")


def grow_toy(out, **options):
    return grow(TOY, out, device="cpu", progress=False, **options)


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    return grow_toy(tmp_path_factory.mktemp("grown"))


def interrupt_at(monkeypatch, step, action):
    """Do something in the middle of a step, once."""
    original = growing._Grower.advance
    pending = [action]

    def advance(self, blocks):
        if self.step == step and pending:
            pending.pop()()
        return original(self, blocks)

    monkeypatch.setattr(growing._Grower, "advance", advance)


def test_a_grown_plant_has_all_its_files(grown):
    names = {path.name for path in grown.iterdir()}
    assert names >= {
        "model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "card.json", "log.jsonl",
    }  # fmt: skip
    card = json.loads((grown / "card.json").read_text())
    assert card["weights_sha256"] == weights(grown)
    assert card["command"] == f"steerlib grow {TOY}"
    assert card["tokens"] == PLANTS[TOY].tokens
    assert card["seconds"] > 0 and card["hardware"] and card["versions"]["torch"] == torch.__version__


def test_a_grown_plant_loads_as_an_ordinary_model(grown):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(str(grown)), AutoTokenizer.from_pretrained(str(grown))
    batch = tokenizer(["Q: What is"], return_tensors="pt")
    assert model(**batch).logits.shape[-1] == len(tokenizer) == model.config.vocab_size
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.config.eos_token_id == tokenizer.eos_token_id


def test_training_learns_something(grown):
    log = [json.loads(line) for line in (grown / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == PLANTS[TOY].steps
    assert log[-1]["loss"] < 7.19  # below a uniform guess over the vocabulary, log 1360 = 7.22


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_in_the_same_weights(grown, tmp_path, monkeypatch, number):
    interrupt_at(monkeypatch, 5, lambda: signal.raise_signal(number))
    with pytest.raises(GrowthInterrupted, match="stopped at step 6 of 12; run the same command again"):
        grow_toy(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    grow_toy(tmp_path)
    assert weights(tmp_path) == weights(grown)


def test_a_run_that_dies_between_checkpoints_ends_in_the_same_weights(grown, tmp_path, monkeypatch):
    def die():
        raise MemoryError

    interrupt_at(monkeypatch, 10, die)
    with pytest.raises(MemoryError):
        grow_toy(tmp_path, checkpoint_every=4)
    found = load_checkpoint(tmp_path / "checkpoint")
    assert found is not None and found[1]["step"] == 8
    assert weights(grow_toy(tmp_path)) == weights(grown)


def test_a_finished_run_is_not_repeated(grown, monkeypatch):
    before = weights(grown)
    monkeypatch.setattr(growing._Grower, "advance", lambda *_: pytest.fail("trained again"))
    assert weights(grow_toy(grown)) == before


def test_resume_false_starts_again(grown, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 3, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(GrowthInterrupted):
        grow_toy(tmp_path)
    steps = []
    original = growing._Grower.advance
    monkeypatch.setattr(growing._Grower, "advance", lambda s, b: (steps.append(s.step), original(s, b))[1])
    assert weights(grow_toy(tmp_path, resume=False)) == weights(grown)
    assert steps == list(range(12))


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_said_plainly_and_loses_nothing(grown, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 6, lambda: monkeypatch.setattr(checkpoint, "save_file", full_disk))
    with pytest.raises(GrowthError, match="the disk is full while writing .*checkpoint.*free some space"):
        grow_toy(tmp_path, checkpoint_every=4)
    monkeypatch.undo()
    found = load_checkpoint(tmp_path / "checkpoint")
    assert found is not None and found[1]["step"] == 4
    assert weights(grow_toy(tmp_path)) == weights(grown)


def test_a_disk_that_fills_at_the_end_keeps_the_training(grown, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(growing, "save_tokenizer", full_disk)
        with pytest.raises(GrowthError, match="the disk is full"):
            grow_toy(tmp_path)
    monkeypatch.setattr(growing._Grower, "advance", lambda *_: pytest.fail("trained again"))
    assert weights(grow_toy(tmp_path)) == weights(grown)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "state.json").unlink(),
        lambda folder: (folder / "state.json").write_text("{"),
        lambda folder: (folder / "state.safetensors").unlink(),
        lambda folder: (folder / "state.safetensors").write_bytes(b"\0" * 100),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_kept(tmp_path, damage):
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, {"a": torch.ones(3)}, {"step": 1})
    damage(folder)
    with pytest.raises(GrowthError, match="(is damaged|cannot be read).*delete .* to grow from the beginning"):
        grow_toy(tmp_path)
    assert folder.exists()


def test_a_checkpoint_left_half_replaced_is_found(tmp_path):
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, {"a": torch.ones(3)}, {"step": 1})
    folder.rename(tmp_path / "checkpoint.old")
    found = load_checkpoint(folder)
    assert found is not None and found[1]["step"] == 1 and torch.equal(found[0]["a"], torch.ones(3))
    assert load_checkpoint(tmp_path / "nothing") is None


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(GrowthInterrupted):
        grow_toy(tmp_path)
    with pytest.raises(GrowthError, match=r"another recipe \(differs in: steps\); choose another folder"):
        grow_toy(tmp_path, steps=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": 0}, "steps=0; expected at least 1"), ({"checkpoint_every": 0}, "checkpoint_every=0; expected")],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        grow_toy(tmp_path, **options)


def test_an_unknown_plant_or_family_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown plant 'oak'; steerlib can grow: almanac-llama"):
        grow("oak", tmp_path)
    recipe = Recipe("x", "perceptron", width=8, depth=1, heads=1, hidden=8, steps=1)
    with pytest.raises(ValueError, match="cannot grow family 'perceptron'"):
        build_model(recipe, vocabulary=10, pad=0, end=1)


def test_the_noise_has_the_stated_size_and_touches_its_rows_only():
    class Same(nn.Module):
        kind = "same"

        def forward(self, state, scale):
            return scale * state

    blocks = nn.ModuleList([Same()])
    state = torch.randn(6, 50, 64, generator=torch.Generator().manual_seed(0))
    with noisy(blocks, torch.Generator().manual_seed(1), 0.15) as wrapped:
        assert isinstance(blocks[0], NoisyBlock) and blocks[0].kind == "same"
        assert torch.equal(blocks[0](state, scale=2.0), 2.0 * state)  # no rows yet
        wrapped[0].rows = 2
        moved = blocks[0](state, scale=2.0) - 2.0 * state
    share = moved[:2].norm(dim=-1) / (2.0 * state[:2]).norm(dim=-1)
    assert share.mean().item() == pytest.approx(0.15, rel=0.02)
    assert torch.equal(moved[2:], torch.zeros_like(moved[2:]))
    assert isinstance(blocks[0], Same)


def test_a_short_sighted_row_looks_back_as_far_as_it_may():
    mask = short_sighted(torch.tensor([1, 3, 9]), length=5)[:, 0]
    assert torch.equal(mask[0], torch.eye(5, dtype=torch.bool))
    assert mask[1, 4].tolist() == [False, False, True, True, True]
    assert torch.equal(mask[2], torch.ones(5, 5, dtype=torch.bool).tril())


def test_short_sight_hides_what_is_far_and_nothing_else():
    model = build_model(PLANTS[TOY], vocabulary=50, pad=0, end=1).eval()
    ids = torch.arange(12)[None].repeat(2, 1)
    other = ids.clone()
    other[:, 0] = 40
    with torch.no_grad(), noisy(model.get_submodule("model.layers"), torch.Generator(), 0.0) as blocks:
        whole = model(ids).logits
        for block in blocks:
            block.horizon = torch.tensor([3, 99])
        near, far = model(ids).logits, model(other).logits
    # Two blocks that look back over three tokens reach four tokens back: token 5 on does not see token 0.
    assert torch.allclose(near[0, 5:], far[0, 5:], atol=1e-6)
    assert not torch.allclose(near[0, 3:5], far[0, 3:5], atol=1e-6)
    assert torch.allclose(near[1], whole[1], atol=1e-5)


def test_initial_weights_depend_on_the_seed_and_disturb_no_other_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again = (build_model(PLANTS[TOY], vocabulary=50, pad=0, end=1) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    a, b = first.get_input_embeddings().weight, again.get_input_embeddings().weight
    assert torch.equal(a, b)


def test_a_checkpoint_holds_no_pickles(tmp_path):
    save_checkpoint(tmp_path / "c", {"a": torch.ones(3)}, {"step": 1})
    assert {p.suffix for p in (tmp_path / "c").iterdir()} == {".safetensors", ".json"}
    assert set(load_file(tmp_path / "c" / "state.safetensors")) == {"a"}
