"""Models of few layers, few tokens and random weights, which replace a run's own models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.checkpoint import Checkpoint, save_checkpoint
from roots_compress.checkpoints.generation_settings import TOKEN_IDS
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.tokenizer import check_vocabulary, load_tokenizer
from roots_compress.data.documents import Document
from roots_compress.data.tokenizers import tokenizer_sha256
from roots_compress.io.json_files import read_json_object
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.spec import Layer, ModelSpec

VOCABULARY = 4096
"""Tokens of a reduced vocabulary, if the full one is larger."""
TEXT, LINE = 1 << 18, 200
"""Approximate characters of text for training the tokens; and of a text that any model can read."""


def with_few_layers(spec: ModelSpec, count: int) -> ModelSpec:
    """Return a model with at most this many layers a stack, of different forms if possible."""
    chosen: list[int] = []
    for stack, first in zip(spec.running, (0, spec.begins), strict=False):
        chosen += (first + index for index in _different(stack.layers, count))
    return spec.with_chosen(chosen)


def _different(layers: tuple[Layer, ...], count: int) -> list[int]:
    """Return the numbers of at most this many layers: the first of each form, then the others in order."""
    firsts = sorted(dict(zip(reversed(layers), reversed(range(len(layers))), strict=True)).values())
    others = [index for index in range(len(layers)) if index not in firsts]
    return sorted([*firsts, *others][:count])


def random_model(spec: ModelSpec) -> RootsWithHead:
    """Return a model of random weights, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: RootsWithHead = make_model(RootsConfig(spec=spec)).eval()
    return model


def stand_in(spec: ModelSpec, tokenizer: PreTrainedTokenizerFast) -> Checkpoint:
    """Return a checkpoint of random weights with a tokenizer of its vocabulary."""
    model = random_model(spec)
    for name in TOKEN_IDS:
        setattr(model.config, name, getattr(tokenizer, name))
    return Checkpoint(model, tokenizer)


class StandIns:
    """Makes models of few layers and few tokens, which replace a run's own.

    Args:
        texts: the run's, from which small vocabularies are made.
    """

    def __init__(self, texts: Sequence[Document]) -> None:
        self._texts = texts
        self._tokenizers: dict[str, PreTrainedTokenizerFast] = {}
        """By the fingerprints of the replaced ones: models with one vocabulary keep sharing it."""

    def few(
        self, spec: ModelSpec, tokenizer: PreTrainedTokenizerFast, layers: int
    ) -> tuple[ModelSpec, PreTrainedTokenizerFast]:
        """Return a shape of at most this many layers a stack and few tokens, and its tokenizer.

        Rounding, storing and reading a large table takes longer than everything else with few layers.
        """
        spec = with_few_layers(spec, layers)
        if spec.source is not None:  # Its decoder names the first token by its number.
            return spec, tokenizer
        fingerprint = tokenizer_sha256(tokenizer)
        if fingerprint not in self._tokenizers:
            self._tokenizers[fingerprint] = with_few_tokens(tokenizer, self._texts)
        small = self._tokenizers[fingerprint]
        if len(small) == len(tokenizer):
            return spec, tokenizer
        return spec.with_embeddings(vocabulary=_rows(small)), small

    def write(self, source: Path, place: Path, *, layers: int) -> Path:
        """Write the replacement of a checkpoint or of a file with a student's shape; return its path.

        Raises:
            InputError: the source is damaged.
        """
        if source.suffix == ".json":
            return _write_shape(source, place.with_suffix(".json"))
        info = inspect_source(source)
        tokenizer = load_tokenizer(info)
        check_vocabulary(tokenizer, info.vocab_size, source)
        save_checkpoint(stand_in(*self.few(info.spec, tokenizer, layers)), place)
        return place


def with_few_tokens(tokenizer: PreTrainedTokenizerFast, texts: Sequence[Document]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of `VOCABULARY` tokens with the rules of another.

    One with no more tokens, or of a kind that cannot be trained, is returned unchanged.
    """
    if len(tokenizer) <= VOCABULARY:
        return tokenizer
    sample, left = list[str](), TEXT
    for document in texts:
        sample.append(document.text[:left])
        left -= len(sample[-1])
        if left <= 0:
            break
    try:
        small = tokenizer.train_new_from_iterator([sample], VOCABULARY, show_progress=False)
        used = max(small.encode(sample[0][:LINE]) + small.all_special_ids)
    except Exception:  # The tokenizers library raises bare exceptions.
        return tokenizer
    return small if used < _rows(small) < len(tokenizer) else tokenizer


def _rows(tokenizer: PreTrainedTokenizerFast) -> int:
    return 1 + max(tokenizer.get_vocab().values())


def _write_shape(source: Path, path: Path) -> Path:
    """Write the shape of a student without its vocabulary, so that its teacher's is used."""
    document = read_json_object(source)
    for key in ("vocab_size", *TOKEN_IDS):
        document.pop(key, None)
    if isinstance(tables := document.get("embeddings"), dict):
        tables.pop("vocabulary", None)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path
