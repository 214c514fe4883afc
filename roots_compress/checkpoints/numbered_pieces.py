"""Tokenizers of SentencePiece models whose pieces have numbers of their own, in vocab.json.

Marian has a model of sources and one of targets, M2M100 one of both and a token for each language.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.source_tokenizer import read_settings
from roots_compress.data.languages import TARGET_LANGUAGE, set_target_tokenizer
from roots_compress.errors import InputError, SourceWarning
from roots_compress.io.json_files import read_json_object

MODELS = {
    "MarianTokenizer": ("source.spm", "target.spm"),
    "M2M100Tokenizer": ("sentencepiece.bpe.model",),
}
"""The models' files, by transformers' class."""
CLASSES = {"marian": "MarianTokenizer", "m2m_100": "M2M100Tokenizer"}
"""By the type of the model, where no class is named."""
VOCABULARY, SETTINGS = "vocab.json", "tokenizer_config.json"
SPECIAL = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
OPENING = {"bos_token": "<s>"}
UNIGRAM, BPE_MODEL = 1, 2
"""SentencePiece's numbers of the kinds of models that are read."""
UNMATCHED = (2, 3, 5)
"""Its numbers of pieces that no text becomes: unknown, control, and unused ones."""
OTHERS = "\ufdd0"
"""Put before a piece of the other side only: no text has this character, and decoding takes it away."""


def models_of_pieces(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of such models' files; none of a folder that has another tokenizer, or tokenizer.json.

    Args:
        config: the model's; the class of the tokenizer is named there if it is not among its settings.
    """
    named = read_settings(folder).get("tokenizer_class") or config.get("tokenizer_class")
    named = named or CLASSES.get(str(config.get("model_type")))
    names = MODELS.get(str(named).removesuffix("Fast"), ())
    lies_there = names and (folder / names[0]).exists() and not (folder / "tokenizer.json").exists()
    return names if lies_there else ()


def tokenizer_of_pieces(folder: Path, names: Sequence[str], where: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a folder; of Marian's it is that of sources, which knows that of targets.

    The ids of a text are those of transformers' MarianTokenizer (without sacremoses) and M2M100Tokenizer,
    but where a model has a piece that vocab.json lacks: the text is then read by other pieces. A character
    that a model lacks is unknown, also where the model of the other side has it.

    Args:
        names: of the models, as `models_of_pieces` returns them.

    Raises:
        InputError: a file is missing, or not of this form.

    Warns:
        SourceWarning: pieces have no number.
    """
    marian = len(names) > 1
    for name in (*names, VOCABULARY):
        if not (folder / name).exists():
            raise InputError(f"has {names[0]}, but no {name}", where=where, remedy="Copy the file too.")
    settings = read_json_object(where / SETTINGS) if (where / SETTINGS).exists() else {}
    numbers = read_json_object(folder / VOCABULARY)
    named = SPECIAL if marian else SPECIAL | OPENING
    special = {key: _text(settings.get(key), token) for key, token in named.items()}
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
    languages = [] if marian else _languages(settings, where)
    read, *others = (
        PreTrainedTokenizerFast(
            tokenizer_object=_backend(folder / name, numbers, special, where),
            model_max_length=settings.get("model_max_length", 512 if marian else 1024),
            extra_special_tokens=languages,
            **special,
        )
        for name in names
    )
    for other in others:
        set_target_tokenizer(read, other)
    if languages:
        source = _text(settings.get("src_lang"), "en")
        _frame(read.backend_tokenizer, [_required(f"__{source}__", languages, where)], special["eos_token"])
        if isinstance(target := settings.get(TARGET_LANGUAGE), str):
            read.init_kwargs[TARGET_LANGUAGE] = target
    read.name_or_path = str(where)
    return read


def _languages(settings: Mapping[str, Any], where: Path) -> list[str]:
    """Return the tokens of M2M100's languages, whose numbers follow those of vocab.json."""
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

    name = _text(settings.get("language_codes"), "m2m100")
    if name not in FAIRSEQ_LANGUAGE_CODES:
        raise InputError(
            f"names the languages {name!r:.40}, which transformers does not know",
            where=where / SETTINGS,
            remedy=f"Say one of {', '.join(FAIRSEQ_LANGUAGE_CODES)}.",
        )
    return [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES[name]]


def _required(language: str, languages: Sequence[str], where: Path) -> str:
    if language not in languages:
        raise InputError(
            f"names the language {language.strip('_')!r:.40}, which the tokenizer lacks",
            where=where / SETTINGS,
            remedy="Correct src_lang, or take it out.",
        )
    return language


def _backend(path: Path, numbers: Mapping[str, int], special: Mapping[str, str], where: Path) -> Tokenizer:
    """Return what reads text by a model, with the numbers that all tokens have."""
    from transformers.convert_slow_tokenizer import SentencePieceExtractor

    extractor = SentencePieceExtractor(str(path))
    model, kind = extractor.proto, extractor.proto.trainer_spec.model_type
    if kind not in (UNIGRAM, BPE_MODEL):
        raise InputError(
            "is a model of SentencePiece for words or characters",
            where=where / path.name,
            remedy="Save a tokenizer.json beside it.",
        )
    tokens = sorted(numbers, key=numbers.__getitem__)
    scores = {piece.piece: piece.score for piece in model.pieces if piece.type not in UNMATCHED}
    codes = [token for token in tokens if token.startswith(">>") and token.endswith("<<")]
    named = {*special.values(), *codes}
    if lost := scores.keys() - set(tokens):
        told = f"{where / path.name}: {len(lost)} of its {len(scores)} pieces have no number in {VOCABULARY}"
        warnings.warn(SourceWarning(f"{told}; text is read without them"), stacklevel=2)
    if kind == UNIGRAM:
        entries = [
            (token if token in scores or token in named else OTHERS + token, scores.get(token, 0.0))
            for token in tokens
        ]
        backend = Tokenizer(Unigram(entries, unk_id=numbers[special["unk_token"]]))
    else:
        extracted: Any = extractor.extract(BPE)
        joined: list[tuple[str, str]] = extracted["merges"]
        merges = [pair for pair in joined if {*pair, "".join(pair)} <= numbers.keys()]
        backend = Tokenizer(BPE(dict(numbers), merges, unk_token=special["unk_token"], fuse_unk=True))
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
    _frame(backend, [], special["eos_token"])
    # The name of the targets' language, before a source.
    backend.add_tokens([AddedToken(code, normalized=False) for code in codes])
    return backend


def _frame(backend: Tokenizer, opening: list[str], eos: str) -> None:
    """Put tokens before a text, and the end of text after it."""
    backend.post_processor = TemplateProcessing(
        single=[*opening, "$A", eos],
        pair=[*opening, "$A", "$B", eos],
        special_tokens=[(token, backend.token_to_id(token)) for token in (*opening, eos)],
    )


def _text(value: object, default: str) -> str:
    """Return a special token as the settings have it: a text, or an object with one."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else default
