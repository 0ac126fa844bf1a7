"""Small models with random weights, of the architecture of those they stand for, in folders as the hub has them.

Knows which family an id belongs to, and how a plant, a judge and an encoder are configured. Knows nothing about
profiles. Every folder holds a configuration, weights in safetensors and a tokenizer, which is one for all: byte pairs
that were learned from invented sentences, so that it reads every text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE

from steerlib.dry.text import answer, corpus, question
from steerlib.errors import SteerlibError
from steerlib.loading import no_progress_bar

VOCABULARY, WIDTH, DEPTH, HEADS = 512, 32, 4, 4
#: Longest text in tokens.
POSITIONS = 2048
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_GROUPED: dict[str, Any] = {**_SIZES, "intermediate_size": 48, "num_key_value_heads": 2}
_GEMMA: dict[str, Any] = {**_GROUPED, "head_dim": 8, "sliding_window": 64}
#: Family -> configuration.
FAMILIES: dict[str, Callable[[], hf.PretrainedConfig]] = {
    "llama": lambda: hf.LlamaConfig(**_GROUPED),
    "mistral": lambda: hf.MistralConfig(**_GROUPED, sliding_window=None),
    "falcon": lambda: hf.FalconConfig(**_SIZES, alibi=False, parallel_attn=True, bias=False, multi_query=True),
    "qwen2": lambda: hf.Qwen2Config(**_GROUPED),
    "qwen3": lambda: hf.Qwen3Config(**_GROUPED, head_dim=8),
    "gemma2": lambda: hf.Gemma2Config(**_GEMMA),
    "gemma3": lambda: hf.Gemma3TextConfig(**_GEMMA),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=DEPTH, n_head=HEADS, n_positions=POSITIONS, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    ),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**_SIZES, intermediate_size=48),
    "opt": lambda: hf.OPTConfig(**_SIZES, ffn_dim=48, word_embed_proj_dim=WIDTH),
    "phi": lambda: hf.PhiConfig(**_SIZES, intermediate_size=48),
}  # fmt: skip
#: What an id holds, in small letters -> its family; the first that fits decides.
BY_NAME: Mapping[str, str] = {
    "gemma-3": "gemma3", "gemma": "gemma2", "falcon": "falcon", "mistral": "mistral", "qwen3": "qwen3",
    "qwen": "qwen2", "gpt2": "gpt2", "pythia": "gpt_neox", "gpt-neox": "gpt_neox", "opt-": "opt", "phi-": "phi",
    "vicuna": "llama", "llama": "llama", "stories260k": "llama",
}  # fmt: skip
#: Matrices whose entries have another standard deviation than the others.
NO_SCALE: Mapping[str, float] = {}
#: Parts of an id that say that its tokenizer has a chat template; of Qwen2.5 those of base models have one, too.
CHATS = ("instruct", "-it", "-chat", "reward", "qwen2.5")
TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def family_of(name: str) -> str:
    """The family of a hub id or folder.

    Raises:
        SteerlibError: it is told neither by a configuration nor by the name.
    """
    file = Path(name).expanduser() / "config.json"
    if file.is_file():
        kind = str(json.loads(file.read_text(encoding="utf-8")).get("model_type", ""))
        kind = {"gemma3_text": "gemma3"}.get(kind, kind)
        if kind in FAMILIES:
            return kind
    found = next((family for part, family in BY_NAME.items() if part in name.lower()), None)
    if found is None:
        raise SteerlibError(
            f"dry run: got the model {name!r}, of whose family nothing is known; expected a name with one of "
            f"{', '.join(BY_NAME)}. Fix: add it to steerlib/dry/models.py"
        )
    return found


@cache
def tokenizer(*, chat: bool = False) -> hf.PreTrainedTokenizerFast:
    """Byte pairs of the invented sentences; reads every text."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    core.train_from_iterator(corpus(), trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    made = hf.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=POSITIONS
    )
    made.chat_template = TEMPLATE if chat else None
    return made


def plant(folder: Path, name: str) -> Path:
    """A causal model of the family of an id."""
    return _once(folder, name, lambda: hf.AutoModelForCausalLM.from_config(FAMILIES[family_of(name)]()))


def completion(folder: Path, name: str, *, yes: str = " yes", no: str = " no") -> Path:
    """A causal model that finishes a question, its answer and a last word with a yes or a no, about as often.

    All other words have the logit 0. The logits of the two are opposite, along the direction in which the states of
    some invented texts differ most: the last word is the same in all of them, and would decide alone otherwise.
    """

    def make() -> Any:
        model: Any = hf.AutoModelForCausalLM.from_config(hf.LlamaConfig(**_GROUPED, tie_word_embeddings=False)).eval()
        _randomise(model)
        told = tokenizer()
        texts = [f"Q: {question(i)}\nA: {answer(i)}.\nTrue:" for i in range(24)]
        with torch.no_grad():
            ends = [model.model(**told(text, return_tensors="pt")).last_hidden_state[0, -1] for text in texts]
            mean = torch.stack(ends).mean(0)
            way = torch.linalg.svd(torch.stack(ends) - mean, full_matrices=False).Vh[0]
            way -= (way @ mean) / (mean @ mean) * mean
            head = model.get_output_embeddings().weight
            head.zero_()
            for word, sign in ((yes, 1.0), (no, -1.0)):
                head[told(word, add_special_tokens=False)["input_ids"][0]] = sign * way
        return model

    return _once(folder, name, make, randomise=False)


def reward(folder: Path, name: str, *, head: str | None = None) -> Path:
    """A decoder with one output, under whatever name the weights of the real one have for its layer."""

    def make() -> Any:
        config = hf.LlamaConfig(**_GROUPED)
        config.num_labels = 1
        return hf.AutoModelForSequenceClassification.from_config(config)

    place = _once(folder, name, make, scale={"score.weight": 1.0})
    file = place / "model.safetensors"
    weights = load_file(file)
    if head is not None and "score.weight" in weights:
        weights[f"{head}.weight"] = weights.pop("score.weight")
        save_file(weights, file, metadata={"format": "pt"})
    return place


def classifier(folder: Path, name: str, *, label: str) -> Path:
    """An encoder with two labels, of which one is the one that is asked for."""

    def make() -> Any:
        config = _encoder(hf.RobertaConfig)
        config.id2label, config.label2id = {0: f"not {label}", 1: label}, {f"not {label}": 0, label: 1}
        return hf.AutoModelForSequenceClassification.from_config(config)

    return _once(folder / label, name, make, scale={"classifier.out_proj.weight": 0.2})


def encoder(folder: Path, name: str) -> Path:
    """A sentence encoder."""
    return _once(folder, name, lambda: hf.AutoModel.from_config(_encoder(hf.BertConfig)))


def _encoder(kind: Callable[..., Any]) -> Any:
    return kind(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=HEADS, intermediate_size=48,
        max_position_embeddings=POSITIONS + 2, type_vocab_size=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def _once(
    folder: Path, name: str, make: Callable[[], Any], *, randomise: bool = True, scale: Mapping[str, float] = NO_SCALE
) -> Path:
    """The folder of a model, written if it is not there; the same id always has the same weights."""
    place = folder / name.strip("/.~").replace("..", "")
    if (place / "tokenizer.json").is_file():
        return place
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sum(name.encode()) % 2**31)
        model = make()
        if randomise:
            _randomise(model, scale=scale)
    chat = any(part in name.lower() for part in CHATS)
    with no_progress_bar():
        model.eval().save_pretrained(place)
    tokenizer(chat=chat).save_pretrained(place)
    return place


def _randomise(model: Any, *, scale: Mapping[str, float] = NO_SCALE) -> None:
    """Larger weights than a family begins with, so that texts differ and a law moves them; norms stay as they are."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                parameter.normal_(std=scale.get(name, 0.3))
