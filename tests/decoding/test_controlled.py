"""Controlled decoding against the plain way, and against the plant's own decoding where both must agree."""

from __future__ import annotations

import pytest
import torch

from steerlib.decoding import BestOf, Blockwise, ControlledDecoding, StateScorer, TextScorer, TokenScorer
from steerlib.errors import NotFiniteError
from steerlib.sampling import uniforms
from tests.decoding.toys import PROMPTS, ids_of, next_logits, plainly, reader, toy, word_rewards, worth
from tests.families import VOCABULARY, tokenizer

TEXTS = TextScorer(word_rewards)


def read_anew(model, ids) -> float:
    with torch.inference_mode():
        out = model.base_model(input_ids=torch.tensor([ids]))
        return float(model.score(out.last_hidden_state[:, -1])[0, 0])


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_the_token_with_the_highest_logit_and_reward_is_chosen(cache: str) -> None:
    p = toy(ending=True)
    out = ControlledDecoding(TEXTS, k=7, weight=2.0).generate(p, PROMPTS, max_new_tokens=6, seed=0, cache=cache)  # type: ignore[arg-type]
    expected = [plainly(p, prompt, lambda _, t: worth(t), k=7, weight=2.0, most=6) for prompt in PROMPTS]
    assert list(out.tokens) == expected
    assert len({len(tokens) for tokens in expected}) > 1, "every answer has one length: the end was not tried"
    unguided = [plainly(p, prompt, lambda *_: 0.0, k=7, weight=2.0, most=6) for prompt in PROMPTS]
    assert expected != unguided
    assert list(out.rewards) == pytest.approx(word_rewards(PROMPTS, out.texts), abs=1e-5)


def test_a_reward_model_reads_each_token_once_and_says_what_it_says_of_the_whole() -> None:
    p, model = toy(ending=True), reader()
    out = ControlledDecoding(TokenScorer(model, tokenizer()), k=6, weight=3.0).generate(
        p, PROMPTS, max_new_tokens=5, seed=0
    )
    expected = [
        plainly(p, prompt, lambda ids, t: read_anew(model, [*ids, t]), k=6, weight=3.0, most=5) for prompt in PROMPTS
    ]
    assert list(out.tokens) == expected
    whole = [read_anew(model, [*ids_of(q), *a]) for q, a in zip(PROMPTS, out.tokens, strict=True)]
    assert list(out.rewards) == pytest.approx(whole, abs=1e-4)
    steps = max(map(len, out.tokens))
    assert out.cost.reward_positions == 4 * 5 + steps * 4 * 6  # the longest prompt has five columns


@pytest.mark.parametrize("pushed", [False, True])
def test_a_value_of_states_is_asked_of_the_state_after_each_candidate(pushed: bool) -> None:
    p = toy(ending=True)
    # The state that the unembedding reads, times the row of token 7, is that token's logit.
    row = p.model.get_output_embeddings().weight[7].detach()  # type: ignore[union-attr]
    decoder = ControlledDecoding(StateScorer(lambda states: states @ row), k=5, weight=1.5)
    push = torch.linspace(-1, 1, p.width)
    with p.under(lambda z: z + push * pushed, layer=1, scope="all"):
        out = decoder.generate(p, PROMPTS, max_new_tokens=5, seed=0)
        expected = [
            plainly(p, prompt, lambda ids, t: float(next_logits(p, [*ids, t])[7]), k=5, weight=1.5, most=5)
            for prompt in PROMPTS
        ]
    assert list(out.tokens) == expected
    steps = max(map(len, out.tokens))
    assert (out.cost.passes, out.cost.positions) == (1 + steps, 4 * 5 + steps * 4 * 5)
    if pushed:
        assert out.tokens != decoder.generate(p, PROMPTS, max_new_tokens=5, seed=0).tokens


@pytest.mark.parametrize("scorer", [TEXTS, TokenScorer(reader(), tokenizer()), StateScorer(lambda z: z.sum(-1))])
def test_without_weight_or_choice_it_is_the_plants_own_decoding(scorer) -> None:
    p = toy(ending=True)
    greedy = p.generate(PROMPTS, max_new_tokens=6, seed=3, temperature=0)
    for decoder in (ControlledDecoding(scorer, weight=0.0), ControlledDecoding(scorer, k=1, weight=9.0)):
        assert decoder.generate(p, PROMPTS, max_new_tokens=6, seed=3).tokens == greedy.tokens


def test_without_weight_sampling_has_the_plants_own_noise() -> None:
    p = toy(ending=True)
    how = {"max_new_tokens": 6, "seed": 3, "samples": 2}
    drawn = ControlledDecoding(TEXTS, k=VOCABULARY + 5, weight=0.0, temperature=None)
    assert drawn.generate(p, PROMPTS, **how).tokens == p.generate(PROMPTS, **how).tokens
    few = ControlledDecoding(TEXTS, k=4, weight=0.0, temperature=0.7)
    assert few.generate(p, PROMPTS, **how).tokens == p.generate(PROMPTS, temperature=0.7, top_k=4, **how).tokens
    cut = ControlledDecoding(TEXTS, k=VOCABULARY, weight=0.0, temperature=None)
    assert cut.generate(p, PROMPTS, top_p=0.5, **how).tokens == p.generate(PROMPTS, top_p=0.5, **how).tokens


def test_what_the_choices_cost_is_their_divergence_from_the_plants_own_draws() -> None:
    p = toy(ending=True)
    decoder = ControlledDecoding(TEXTS, k=6, weight=0.8, temperature=None)
    out = decoder.generate(p, PROMPTS, max_new_tokens=5, seed=2, temperature=0.6, top_k=9)
    for prompt, tokens, found in zip(PROMPTS, out.tokens, out.nats, strict=True):
        ids, expected = ids_of(prompt), 0.0
        for token in tokens:
            own = (next_logits(p, ids) / 0.6).log_softmax(0)
            own = own - own.topk(9).values.logsumexp(0)  # what the plant draws from
            best = own.topk(6)
            said = [sum(worth(t) for t in [*ids[len(ids_of(prompt)) :], int(t)]) for t in best.indices]
            ours = (best.values + 0.8 * torch.tensor(said) / 0.6).log_softmax(0)
            expected += float((ours.exp() * (ours - best.values)).sum())
            ids.append(token)
        assert found == pytest.approx(expected, abs=2e-3)
    assert min(out.nats) > 0.1
    whole = ControlledDecoding(TEXTS, k=VOCABULARY, weight=0.0, temperature=None)
    assert whole.generate(p, PROMPTS, max_new_tokens=5, seed=2).nats == pytest.approx([0.0] * 4, abs=1e-4)
    # Greedy choices, and blocks of samples, have no known distribution.
    for other in (ControlledDecoding(TEXTS, k=6), Blockwise(TEXTS, k=2, block=2)):
        assert other.generate(p, PROMPTS, max_new_tokens=3, seed=2).nats == ()


def test_an_answer_does_not_depend_on_its_batch() -> None:
    p = toy(ending=True)
    for scorer in (TEXTS, StateScorer(lambda z: z[..., 0]), TokenScorer(reader(), tokenizer())):
        for decoder in (ControlledDecoding(scorer, k=5, temperature=None), Blockwise(scorer, k=3, block=2)):
            together = decoder.generate(p, PROMPTS, max_new_tokens=5, seed=11, batch_size=4)
            apart = decoder.generate(p, PROMPTS, max_new_tokens=5, seed=11, batch_size=1)
            assert together.tokens == apart.tokens
            assert together.rewards == pytest.approx(apart.rewards, abs=1e-4)
            assert together.prompts == tuple(PROMPTS)


def test_a_log_probability_chooses_as_the_logit_does_and_a_probability_does_not() -> None:
    p, found = toy(), {}
    for base in ("logit", "log-probability", "probability"):
        decoder = ControlledDecoding(TEXTS, k=6, weight=0.8, base=base, temperature=0.6)  # type: ignore[arg-type]
        found[base] = decoder.generate(p, PROMPTS, max_new_tokens=5, seed=2).tokens
    assert found["logit"] == found["log-probability"] != found["probability"]


def test_a_block_as_long_as_the_answer_is_best_of_n() -> None:
    p = toy(ending=True)
    how = {"max_new_tokens": 5, "seed": 4}
    blocks = Blockwise(TEXTS, k=4, block=5).generate(p, PROMPTS, **how)
    best = BestOf(word_rewards, n=4).generate(p, PROMPTS, **how)
    assert blocks.tokens == best.tokens and blocks.rewards == pytest.approx(best.rewards, abs=1e-5)
    assert Blockwise(TEXTS, k=1, block=2).generate(p, PROMPTS, **how).tokens == p.generate(PROMPTS, **how).tokens


def test_of_sampled_blocks_the_best_goes_on() -> None:
    p, k = toy(), 3
    out = Blockwise(TEXTS, k=k, block=1).generate(p, PROMPTS[:1], max_new_tokens=4, seed=6)
    ids, expected = ids_of(PROMPTS[0]), []
    for step in range(4):
        noise = uniforms(6, torch.arange(k), step, VOCABULARY)
        drawn = (next_logits(p, ids) - torch.log(-torch.log(noise))).argmax(1).tolist()
        expected.append(max(drawn, key=worth))
        ids.append(expected[-1])
    assert out.tokens == (tuple(expected),)


def test_a_block_that_ends_early_is_scored_where_it_ended() -> None:
    p, model = toy(ending=True), reader()
    row = p.model.get_output_embeddings().weight[7].detach()  # type: ignore[union-attr]
    for scorer, whole in (
        (StateScorer(lambda z: z @ row), lambda ids: float(next_logits(p, ids)[7])),
        (TokenScorer(model, tokenizer()), lambda ids: read_anew(model, ids)),
    ):
        out = Blockwise(scorer, k=3, block=6).generate(p, PROMPTS, max_new_tokens=6, seed=1, samples=6)
        assert min(map(len, out.tokens)) < 5
        anew = [whole([*ids_of(q), *answer]) for q, answer in zip(out.prompts, out.tokens, strict=True)]
        assert list(out.rewards) == pytest.approx(anew, abs=1e-3)


def test_rewards_are_counted_as_they_are_asked_for() -> None:
    p, seen = toy(ending=True), []

    def counting(prompts, answers):
        seen.append(len(answers))
        return word_rewards(prompts, answers)

    out = ControlledDecoding(TextScorer(counting), k=7, weight=2.0).generate(p, PROMPTS, max_new_tokens=6, seed=0)
    lengths = [len(tokens) for tokens in out.tokens]
    assert seen == [7 * sum(length > step for length in lengths) for step in range(max(lengths))]
    assert (out.cost.reward_calls, out.cost.rewards) == (len(seen), sum(seen))
    assert (out.cost.passes, out.cost.answer_tokens) == (max(lengths), sum(lengths))
    assert out.cost.positions == 4 * 5 + 4 * (max(lengths) - 1)


def test_logits_that_are_no_numbers_are_refused() -> None:
    p = toy()
    with (
        p.under(lambda z: z * torch.nan, layer=1),
        pytest.raises(NotFiniteError, match="decoding: 4 branches at token 0"),
    ):
        ControlledDecoding(TEXTS).generate(p, PROMPTS, max_new_tokens=2, seed=0)
