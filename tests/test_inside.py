"""Sites inside the blocks: found in every family, where the model's own code says they are."""

from __future__ import annotations

import pytest
import torch

from steerlib.actuator import Site
from steerlib.errors import SiteError
from steerlib.laws.additive import Additive
from steerlib.plant import Plant
from steerlib.recorder import record
from tests.families import DEPTH, FAMILIES, WIDTH, model, plant, tokenizer, words

TEXTS = [words(5, 9, 30, 41), words(60, 3)]
#: Where the parts are, by the source of transformers: projection, norm before attention, norm before the MLP.
LLAMA = ("self_attn.o_proj", "input_layernorm", "post_attention_layernorm")
PLACES = {
    "llama": LLAMA, "mistral": LLAMA, "qwen2": LLAMA, "qwen3": LLAMA,
    "gemma2": ("self_attn.o_proj", "input_layernorm", "pre_feedforward_layernorm"),
    "gemma3": ("self_attn.o_proj", "input_layernorm", "pre_feedforward_layernorm"),
    "falcon": ("self_attention.dense", "input_layernorm", None),
    "phi": ("self_attn.dense", "input_layernorm", None),
    "gpt2": ("attn.c_proj", "ln_1", "ln_2"),
    "gpt_neox": ("attention.dense", "input_layernorm", "post_attention_layernorm"),
    "opt": ("self_attn.out_proj", "self_attn_layer_norm", "final_layer_norm"),
}  # fmt: skip


def assert_alike(p: Plant, one: torch.Tensor, other: torch.Tensor) -> None:
    """Equal where there are tokens: padding is not steered, and what stands there is not read."""
    real = p.encode(TEXTS).attention_mask.bool()
    torch.testing.assert_close(one[real], other[real], atol=2e-4, rtol=2e-4)


def draw(width: int) -> torch.Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", FAMILIES)
class TestEveryFamily:
    def test_a_vector_at_the_heads_is_a_bias_of_the_projection(self, family):
        p = plant(family)
        vector = draw(p.width_at(Site(1, "heads")))
        with p.under(Additive(vector), layer=1, point="heads", scope="all"):
            steered = p.forward(TEXTS)
        by_hand = Plant.from_model(model(family), tokenizer())
        projection = by_hand.blocks[1].get_submodule(PLACES[family][0])
        weight = projection.weight if type(projection).__name__ == "Conv1D" else projection.weight.T
        with torch.no_grad():
            moved = vector @ weight
            if projection.bias is None:
                projection.bias = torch.nn.Parameter(moved)
            else:
                projection.bias += moved
        assert_alike(p, steered, by_hand.forward(TEXTS))
        assert (steered - p.forward(TEXTS)).abs().max() > 0.01

    @pytest.mark.parametrize("point", ["attn_norm", "mlp_norm"])
    def test_a_vector_at_a_norm_is_its_bias(self, family, point):
        p, name = plant(family), PLACES[family][1 if point == "attn_norm" else 2]
        law = Additive(draw(WIDTH))
        if name is None:
            with pytest.raises(SiteError, match="mlp_norm of layer 1: one norm serves attention and MLP"):
                p.under(law, layer=1, point=point)
            return
        with p.under(law, layer=1, point=point, scope="all"):
            steered = p.forward(TEXTS)
        by_hand = Plant.from_model(model(family), tokenizer())
        norm = by_hand.blocks[1].get_submodule(name)
        norm.register_forward_hook(lambda _module, _args, output: output + law.vector)
        assert_alike(p, steered, by_hand.forward(TEXTS))
        assert (steered - p.forward(TEXTS)).abs().max() > 0.01

    def test_what_is_recorded_is_what_the_projection_gets(self, family):
        p, site = plant(family), Site(DEPTH - 1, "heads")
        seen = []
        projection = p.blocks[-1].get_submodule(PLACES[family][0])
        handle = projection.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
        one = p.encode(TEXTS[:1])
        p.forward(one)
        handle.remove()
        found = record(p, TEXTS, sites=[site, Site(0)])
        torch.testing.assert_close(found.at(site)[0], seen[0][0, -1], atol=1e-4, rtol=1e-4)
        assert found.at(Site(0)).shape[1] == WIDTH

    def test_padding_is_not_steered(self, family):
        p = plant(family)
        law = Additive(draw(p.width_at(Site(1, "heads"))))
        for side in ("left", "right"):
            batch = p.encode(TEXTS, side=side)
            with p.under(law, layer=1, point="heads", scope="last"):
                together = p.forward(batch)
                alone = p.forward(TEXTS[1:])
            last = together[1, -1] if side == "left" else together[1, 1]
            torch.testing.assert_close(last, alone[0, -1], atol=2e-4, rtol=2e-4)


def wide() -> Plant:
    """Heads that are wider together than the residual stream."""
    import transformers as hf

    from tests.families import _GROUPED

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = hf.AutoModelForCausalLM.from_config(hf.Qwen3Config(**_GROUPED, head_dim=16)).eval()
    return Plant.from_model(made, tokenizer())


def test_heads_may_be_wider_than_the_stream(tmp_path):
    p, site = wide(), Site(0, "heads")
    assert (p.width_at(site), p.width_at(Site(0)), p.heads) == (64, WIDTH, 4)
    kept = record(p, TEXTS, sites=[site, Site(0)], out=tmp_path)
    again = record(p, TEXTS, sites=[site, Site(0)], out=tmp_path)  # read, not recorded
    assert kept.at(site).shape == (2, 64) and kept.at(0).shape == (2, WIDTH)
    assert torch.equal(kept.at(site), record(p, TEXTS, sites=[site]).at(site))
    assert torch.equal(again.at(site), kept.at(site))


@pytest.mark.parametrize("point", ["heads", "mlp_norm"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_a_site_that_is_first_asked_for_after_compiled_code_has_run(family, point):
    p = plant(family)
    how = {"max_new_tokens": 5, "seed": 0, "temperature": 0.0, "cache": "static"}
    free = p.generate(TEXTS, **how, compile="eager").tokens
    law = Additive(20 * draw(p.width_at(Site(1, "heads")) if point == "heads" else WIDTH))
    with p.under(law, layer=1, point=point):
        compiled = p.generate(TEXTS, **how, compile="eager").tokens
        eager = p.generate(TEXTS, **{**how, "cache": "dynamic"}).tokens
    assert compiled == eager != free
    assert p.generate(TEXTS, **how, compile="eager").tokens == free


def test_hooks_inside_blocks_come_on_demand_and_go_with_the_plant():
    p = plant("llama")
    projection, norm = p.blocks[1].self_attn.o_proj, p.blocks[1].post_attention_layernorm
    assert not projection._forward_pre_hooks and not norm._forward_hooks
    p.under(Additive(torch.ones(WIDTH)), layer=1, point="heads")
    p.under(Additive(torch.ones(WIDTH)), layer=1, point="heads")
    assert len(projection._forward_pre_hooks) == 1 and not norm._forward_hooks
    assert not p.blocks[0].self_attn.o_proj._forward_pre_hooks
    p.close()
    assert not projection._forward_pre_hooks
    with pytest.raises(SiteError, match="this plant was closed"):
        p.under(Additive(torch.ones(WIDTH)), layer=0, point="heads")


def test_a_law_at_work_does_not_see_how_the_parts_are_found():
    p, seen = plant("llama"), []
    with p.under(lambda state: seen.append(1) or state, layer=0, scope="generated"):
        p.under(Additive(torch.ones(WIDTH)), layer=1, point="heads")
        assert not seen
        p.forward(TEXTS)
    assert seen


def test_a_norm_after_attention_is_not_taken_for_one_before_the_mlp():
    import transformers as hf

    from tests.families import _GROUPED

    p = Plant.from_model(hf.AutoModelForCausalLM.from_config(hf.Olmo2Config(**_GROUPED)).eval(), tokenizer())
    for point, reader in (("mlp_norm", "the MLP"), ("attn_norm", "attention")):
        with pytest.raises(SiteError, match=f"{point} of layer 0: this block has no norm whose output {reader} reads"):
            p.under(Additive(torch.ones(WIDTH)), layer=0, point=point)
    assert p.width_at(Site(0, "heads")) == WIDTH
