"""Marian's tokenizer: a SentencePiece model of sources and one of targets, and the numbers of all pieces."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import Unigram
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from roots_compress.data.languages import set_target_tokenizer
from roots_compress.errors import InputError, SourceWarning
from roots_compress.io.json_files import read_json_object

SOURCE_SPM, TARGET_SPM, VOCABULARY = "source.spm", "target.spm", "vocab.json"
SPECIAL = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
UNIGRAM = 1
"""SentencePiece's number of this kind of model."""
UNMATCHED = (2, 3, 5)
"""Its numbers of pieces that no text becomes: unknown, control, and unused ones."""
OTHERS = "\ufdd0"
"""Put before a piece of the other side only: no text has this character, and decoding takes it away."""


def has_marians_files(folder: Path) -> bool:
    """Whether a folder has the two models and no tokenizer.json."""
    return (folder / SOURCE_SPM).exists() and not (folder / "tokenizer.json").exists()


def marian_tokenizer(folder: Path, settings: Mapping[str, Any], where: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of sources, which knows that of targets (`target_tokenizer`).

    The ids of a text are those of transformers' MarianTokenizer without sacremoses, but where source.spm or
    target.spm has a piece that vocab.json lacks: the text is then read by other pieces. A character that the
    side's own model lacks is unknown.

    Args:
        folder: with the three files.
        settings: tokenizer_config.json.
        where: the folder that errors name.

    Raises:
        InputError: a file is missing, or not of this form.

    Warns:
        SourceWarning: pieces have no number.
    """
    for name in (TARGET_SPM, VOCABULARY):
        if not (folder / name).exists():
            raise InputError(f"has {SOURCE_SPM}, but no {name}", where=where, remedy="Copy the file too.")
    numbers = read_json_object(folder / VOCABULARY)
    special = {key: _text(settings.get(key), token) for key, token in SPECIAL.items()}
    if sorted(map(repr, numbers.values())) != sorted(map(repr, range(len(numbers)))):
        raise InputError(
            f"does not number its {len(numbers)} tokens from 0 on",
            where=where / VOCABULARY,
            remedy="Copy the file again.",
        )
    if lacking := [token for token in special.values() if token not in numbers]:
        raise InputError(
            f"lacks the token {lacking[0]!r}", where=where / VOCABULARY, remedy="Copy the file again."
        )
    source, target = (
        PreTrainedTokenizerFast(
            tokenizer_object=_backend(
                folder / name, sorted(numbers, key=numbers.__getitem__), special, where
            ),
            model_max_length=settings.get("model_max_length", 512),
            **special,
        )
        for name in (SOURCE_SPM, TARGET_SPM)
    )
    set_target_tokenizer(source, target)
    source.name_or_path = str(where)
    return source


def _backend(path: Path, tokens: list[str], special: Mapping[str, str], where: Path) -> Tokenizer:
    """Return what reads a side by its model, with the numbers that all tokens have."""
    from transformers.convert_slow_tokenizer import SentencePieceExtractor

    model = SentencePieceExtractor(str(path)).proto
    if model.trainer_spec.model_type != UNIGRAM:
        raise InputError(
            "is no unigram model of SentencePiece",
            where=where / path.name,
            remedy="Save a tokenizer.json beside it.",
        )
    scores = {piece.piece: piece.score for piece in model.pieces if piece.type not in UNMATCHED}
    codes = [token for token in tokens if token.startswith(">>") and token.endswith("<<")]
    named = {*special.values(), *codes}
    if lost := scores.keys() - set(tokens):
        told = f"{where / path.name}: {len(lost)} of its {len(scores)} pieces have no number in {VOCABULARY}"
        warnings.warn(SourceWarning(f"{told}; text is read without them"), stacklevel=2)
    backend = Tokenizer(
        Unigram(
            [
                (token if token in scores or token in named else OTHERS + token, scores.get(token, 0.0))
                for token in tokens
            ],
            unk_id=tokens.index(special["unk_token"]),
        )
    )
    rules = model.normalizer_spec
    steps: list[Any] = [normalizers.Replace(OTHERS, "")]
    if rules.precompiled_charsmap:
        steps.append(normalizers.Precompiled(rules.precompiled_charsmap))
    if rules.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    backend.normalizer = normalizers.Sequence(steps)
    first = "always" if rules.add_dummy_prefix else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme=first, split=model.trainer_spec.split_by_whitespace
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace(OTHERS, ""), decoders.Metaspace(prepend_scheme=first)]
    )
    eos = special["eos_token"]
    backend.post_processor = TemplateProcessing(
        single=["$A", eos], pair=["$A", "$B", eos], special_tokens=[(eos, tokens.index(eos))]
    )
    # The name of the targets' language, before a source.
    backend.add_tokens([AddedToken(code, normalized=False) for code in codes])
    return backend


def _text(value: object, default: str) -> str:
    """Return a special token as the settings have it: a text, or an object with one."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else default
