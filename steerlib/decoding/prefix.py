"""Prefix scorers: what a beginning of an answer will earn, learned from answers of the plant itself.

A reward model is trained on whole answers; a prefix scorer is trained on all beginnings of answers that the unsteered
plant wrote (Mudgal et al. 2023), by one of two targets:

| method  | V(beginning) is drawn to                             | target of `steerlib.control.bellman` |
|---------|------------------------------------------------------|--------------------------------------|
| "fudge" | the reward of the whole answer (Yang and Klein 2021) | "monte-carlo"                        |
| "cd-q"  | V of the beginning with one token more; at the end r | "td0"                                |

Both learn the expected reward under the plant's own further sampling. CD-Q's authors average the target over the next
token by the plant's probabilities; here it is the value after the token that was sampled, as in RE-Control. The update
is the same on average and noisier, and needs no probabilities beside the rollouts.

A beginning y_1..y_t is read after its last token, the end token included, so that V says what ending here is worth.
RE-Control's trajectories hold the states o_0..o_{L-1} that the L tokens of an answer are drawn from; those after the
tokens are o_1..o_L: `prefix_states` are theirs, moved on by one token.

`state_scorer` learns a small network on states of the plant; `token_scorer` a model of its own, which reads tokens.

Knows plants, rollouts and how values are fitted; knows nothing about how a scorer is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedModel

from steerlib.actuator import Site
from steerlib.control.bellman import Target, bellman_loss
from steerlib.control.networks import History, Training, train
from steerlib.control.rollouts import Trajectories
from steerlib.control.values import fit_value
from steerlib.decoding.base import DecodingError
from steerlib.decoding.reading import StateScorer, TokenScorer
from steerlib.errors import unknown
from steerlib.generation import Generation, answer_texts
from steerlib.harvest import Answers, Reward, Tap, in_shards
from steerlib.plant import Plant
from steerlib.trajectories import READ_OUT, RolloutSampling, _hash, _sampled

Method = Literal["fudge", "cd-q"]
METHODS: dict[str, Target] = {"fudge": "monte-carlo", "cd-q": "td0"}


def prefix_states(
    plant: Plant,
    prompts: Sequence[str],
    reward: Reward,
    folder: Path | str | None = None,
    *,
    how: RolloutSampling,
    rewarded_by: str,
    site: Site = READ_OUT,
    start: bool = False,
    batch_size: int = 64,
    shard: int = 256,
    progress: bool = False,
) -> Trajectories:
    """Let the plant answer, and record its state after each token of the answer, the end token included.

    The answers are those of `steerlib.trajectories.collect`, token by token. With `start` the states are o_0..o_L, one
    more than there are tokens: a value of these can be searched with and ascended, so that the two ways to use it can
    be compared with one and the same value.

    Args:
        plant: with nothing attached.
        prompts: texts.
        reward: called with the prompts and answers of each shard, when they are written.
        folder: where to stream to, and to go on from; None keeps all states in memory.
        how: how answers are drawn.
        rewarded_by: name of the reward: a folder is not continued with another.
        site: where states are taken.
        start: begin with the state that the first token is drawn from, as RE-Control's trajectories do.
        batch_size: answers at a time.
        shard: answers of a file.
        progress: show a bar.

    Raises:
        PlantError: if a law is attached already, or an argument is out of its range.
        SiteError: if the site does not exist.
        ContrastError: if a reward is no number, there are not as many as answers, or the folder holds other
            trajectories, such as those of `collect`.
    """
    how.check(batch_size)
    rows = [row for row in plant._ids(prompts) for _ in range(how.samples)]
    asked = [prompt for prompt in prompts for _ in range(how.samples)]

    def answer(tap: Tap, chosen: range) -> Answers:
        drawn_from, tokens = _sampled(plant, tap, rows, chosen, how, batch_size)
        whole = [[*rows[i], *said] for i, said in zip(chosen, tokens, strict=True)]
        after = _last_states(plant, tap, whole, batch_size)
        # The state that token t + 1 is drawn from is the one after token t; only the last is missing.
        first = 0 if start else 1
        states = [torch.cat([s[first:], last[None]]) for s, last in zip(drawn_from, after, strict=True)]
        return Answers(states, tokens, answer_texts(plant, [rows[i] for i in chosen], tuple(tokens)))

    taken = "before and after each token" if start else "after each token"
    about = {"states": taken, "prompts": _hash(list(prompts)), "how": _hash(vars(how))}
    return in_shards(
        plant, asked, answer, reward, folder,
        law=None, site=site, shard=shard, about={**about, "rewarded_by": rewarded_by}, progress=progress,
    )  # fmt: skip


def _last_states(plant: Plant, tap: Tap, rows: list[list[int]], batch_size: int) -> list[Float[Tensor, " width"]]:
    found: dict[int, Tensor] = {}
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        tap.seen.clear()
        plant.forward(plant._pad([rows[i] for i in index]))
        found.update(zip(index, tap.seen[0].cpu(), strict=True))
    return [found[i] for i in range(len(rows))]


def state_scorer(
    prefixes: Trajectories | Path | str,
    *,
    method: Method,
    hidden: int,
    how: Training,
    seed: int,
    layers: int = 2,
    site: Site = READ_OUT,
) -> StateScorer:
    """A prefix scorer on the plant's own states.

    Args:
        prefixes: what `prefix_states` gave, or its folder.
        method: see the module's text.
        hidden: numbers in an inner layer.
        how: see `steerlib.control.values.fit_value`.
        seed: of weights and order.
        layers: linear layers, 2 or 3.
        site: where the states were taken.
    """
    fitted = fit_value(prefixes, target=_target(method), hidden=hidden, layers=layers, how=how, seed=seed)
    return StateScorer(fitted.network, site=site)


def small_reader(plant: Plant, *, width: int = 64, depth: int = 2, heads: int = 4, seed: int = 0) -> PreTrainedModel:
    """A small Llama with one output, untrained, that reads the plant's token ids.

    Raises:
        DecodingError: if the width cannot be divided among the heads.
    """
    if width % heads:
        raise DecodingError(f"width: got {width}, expected a multiple of {heads} heads.")
    size = int(plant.model.get_input_embeddings().weight.shape[0])  # type: ignore[union-attr, arg-type]
    config = LlamaConfig(
        vocab_size=size, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=depth,
        num_attention_heads=heads, pad_token_id=plant.pad_id,
        max_position_embeddings=plant.context_length or 2048,
    )  # fmt: skip
    config.num_labels = 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForSequenceClassification(config).eval()


def token_scorer(
    model: PreTrainedModel,
    plant: Plant,
    answers: Generation,
    rewards: Sequence[float] | Tensor,
    *,
    method: Method,
    how: Training,
    seed: int,
) -> tuple[TokenScorer, History]:
    """Train a model of tokens, in place, to say what beginnings will earn.

    Args:
        model: `small_reader`, or a pretrained decoder for sequence classification with the plant's tokenizer.
        plant: whose tokens these are.
        answers: sampled answers of the plant, such as `plant.generate` gives.
        rewards: of each whole answer.
        method: see the module's text.
        how: batches count answers; see `Training`.
        seed: of held-out answers and order.

    Raises:
        DecodingError: unknown method, a reward for each answer is missing or no number, or all are equal.
        LawError: if the loss is not finite.
    """
    target, scorer = _target(method), TokenScorer(model, plant.tokenizer)
    earned = torch.as_tensor(rewards, dtype=torch.float32).detach()
    if earned.shape != (len(answers),) or not bool(earned.isfinite().all()):
        raise DecodingError(
            f"rewards: got shape {tuple(earned.shape)} for {len(answers)} answers, {int((~earned.isfinite()).sum())} "
            "no finite numbers; expected one finite number for each."
        )
    if bool((earned == earned[0]).all()):
        raise DecodingError(
            f"rewards: got {len(earned)} that all equal {float(earned[0]):g}, so that no beginning would be worth more "
            "than another. Fix: other prompts, or a finer reward."
        )
    heads = plant._ids(answers.prompts)
    device = model.device

    def loss(index: Tensor, _held_out: bool) -> Float[Tensor, ""]:
        chosen = index.tolist()
        # Padded on the right: the place of a token after its answer has begun is then its place in the row.
        rows = [torch.tensor([*heads[i], *answers.tokens[i]]) for i in chosen]
        lengths = torch.tensor([len(answers.tokens[i]) for i in chosen])
        ids = pad_sequence(rows, batch_first=True, padding_value=plant.pad_id)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        out = model.base_model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)  # type: ignore[operator]
        values = scorer.head(out.last_hidden_state)[..., 0].float()
        first = torch.tensor([len(heads[i]) for i in chosen])
        places = (first[:, None] + torch.arange(int(lengths.max()))).clamp(max=ids.shape[1] - 1).to(device)
        said = values.gather(1, places)
        return bellman_loss(said, lengths.to(device), earned[index].to(device), target=target)

    for parameter in model.parameters():
        parameter.requires_grad_(True)
    history = train(model, loss, rows=len(answers), how=how, seed=seed)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return scorer, history


def _target(method: str) -> Target:
    if method not in METHODS:
        raise DecodingError(f"method: {unknown('method', method, METHODS)}")
    return METHODS[method]
