"""Tiny encoders with random weights, and a tokenizer that hides tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import processors
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast

from roots_compress.families.encoder import encoder_spec
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.heads import ClassificationHead, EmbeddingHead, MaskedLmHead
from roots_compress.models.spec import Norm
from tests.tiny import VOCAB_SIZE, randomise, tiny_tokenizer

MASK_ID = VOCAB_SIZE
"""Of the token that stands for a hidden one, which comes after all others."""
ROWS = VOCAB_SIZE + 4
HEADS = {
    "masked_lm": MaskedLmHead(),
    "classification": ClassificationHead(labels=3),
    "embedding": EmbeddingHead(),
}


def tiny_encoder(kind: str = "masked_lm", seed: int = 0, **numbers: Any) -> RootsWithHead:
    """Return an encoder of width 32 and two layers in eval mode, every parameter random."""
    fields: dict[str, Any] = {
        "vocabulary": ROWS,
        "width": 32,
        "layers": 2,
        "heads": 4,
        "channels": 48,
        "activation": "gelu",
        "norm": Norm(kind="layer_norm"),
        "positions": 64,
        "token_types": 2,
        "head": HEADS[kind],
        "tied": True,
    }
    model = make_model(RootsConfig(spec=encoder_spec(**{**fields, **numbers})))
    randomise(model.eval(), seed)
    return model


def encoder_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tiny tokenizer as an encoder's: a text stands between two special tokens, and one hides."""
    backend = tiny_tokenizer().backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 0), ("<eos>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="<bos>", sep_token="<eos>", pad_token="<pad>", mask_token="[MASK]"
    )


def bert_config(**changes: Any) -> BertConfig:
    """Return transformers' configuration of the same shape."""
    fields: dict[str, Any] = {
        "vocab_size": ROWS,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "pad_token_id": 2,
    }
    return BertConfig(**{**fields, **changes})


def save_bert(folder: Path, kind: type[PreTrainedModel] = BertForMaskedLM, **changes: Any) -> PreTrainedModel:
    """Write transformers' model of the same shape and its tokenizer, and return the model."""
    model: PreTrainedModel = kind(bert_config(**changes)).eval()
    randomise(model)
    model.save_pretrained(folder)
    encoder_tokenizer().save_pretrained(folder)
    return model
