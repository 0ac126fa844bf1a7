"""Folders such as the hub has them, with tiny random models: a reward model and an encoder that read any text."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors


def byte_tokenizer() -> hf.PreTrainedTokenizerFast:
    """One token a byte: another tokenizer than that of any plant, which reads every text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {"<pad>": 0, "<s>": 1, "</s>": 2, **{letter: i + 3 for i, letter in enumerate(alphabet)}}
    core = Tokenizer(models.BPE(vocab=words, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return hf.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def _save(folder: Path, kind: type, config: hf.PretrainedConfig, seed: int) -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind.from_config(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() >= 2:  # norms stay as they are, so that states keep their size
                    parameter.normal_(std=0.5)
                if name == "score.weight":
                    parameter.normal_(std=3.0)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


def reward_model(folder: Path, *, seed: int = 0) -> str:
    """A decoder with one output, as the papers' reward models are."""
    config = hf.LlamaConfig(
        vocab_size=260, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    config.num_labels = 1
    return _save(folder, hf.AutoModelForSequenceClassification, config, seed)


def encoder(folder: Path, *, seed: int = 1) -> str:
    """A sentence encoder."""
    config = hf.BertConfig(
        vocab_size=260, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=128, pad_token_id=0,
    )  # fmt: skip
    return _save(folder, hf.AutoModel, config, seed)
