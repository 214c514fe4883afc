"""A source's tokenizer as transformers' own class reads it, turned into one that tokenizer.json says all of.

A class may name special tokens that no file names, and add tokens that no file has, which are left out. In
transformers 5 the classes of GPT-2, Llama and others also cut text by rules of their own and pass over those
of tokenizer.json: SmolLM2's digits, read one by one in training, would come together. So where there is a
tokenizer.json, its rules cut the text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase, Sequence
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from roots_compress.data.languages import TARGET_LANGUAGE
from roots_compress.data.special_tokens import open_with_nothing, opening_ids
from roots_compress.errors import InputError
from roots_compress.io.json_files import read_json_object

SAVE_AGAIN = "Load it with transformers by the class that it is of, and save a tokenizer.json."
OPENS = "add_bos_token"
"""Key of tokenizer_config.json: whether the tokenizer puts BOS before a text."""
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
KEPT = ("model_max_length", "padding_side", "truncation_side", "split_special_tokens", "model_input_names")
"""Settings of a tokenizer that are carried over beside its special tokens."""
SAMPLE = "The quick (brown) fox: 1, 22, 333!\n"


def as_written(
    tokenizer: PreTrainedTokenizerFast, folder: Path, source: Path, config: Mapping[str, Any]
) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the plain class that gives the same ids.

    Args:
        folder: copies of the files that it was loaded from.
        source: the model's folder.
        config: of the model, which names BOS and EOS where the tokenizer does not.

    Raises:
        InputError: the class does not fit the files, so that it reads text as nothing, or puts more than one
            token before a text.
    """
    _require_read(tokenizer, folder, source)
    if (count := len(opening_ids(tokenizer))) > 1:
        raise InputError(
            f"has a tokenizer that puts {count} tokens before a text; at most one is supported",
            where=source,
            remedy="Set its post_processor in tokenizer.json to put one.",
        )
    named = {name: getattr(tokenizer, name) for name in NAMED}
    backend = tokenizer.backend_tokenizer
    if type(tokenizer) is not PreTrainedTokenizerFast:  # which cuts by tokenizer.json alone
        backend = _by_written_rules(backend, folder)
    backend = _without(backend, folder)
    if not (folder / "tokenizer.json").exists() or read_settings(folder).get(OPENS) is False:
        open_with_nothing(backend)  # The class, or the setting, has said what opens a text.
    vocabulary = backend.get_vocab()
    special = {name: token for name, token in named.items() if token is not None and token in vocabulary}
    special |= _named_by_config(source, config, folder, backend, special)
    extra = [token for token in tokenizer.all_special_tokens if token in vocabulary]
    plain = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=bool(getattr(tokenizer, "clean_up_tokenization_spaces", False)),
        extra_special_tokens=[token for token in extra if token not in special.values()],
        **{name: getattr(tokenizer, name) for name in KEPT},
        **special,
    )
    if language := read_settings(folder).get(TARGET_LANGUAGE):
        plain.init_kwargs[TARGET_LANGUAGE] = language
    plain.chat_template = tokenizer.chat_template
    plain.name_or_path = str(source)
    plain.init_kwargs.pop("name_or_path", None)
    return plain


def _require_read(tokenizer: PreTrainedTokenizerFast, folder: Path, where: Path) -> None:
    """Refuse a tokenizer that lacks what its files hold, or reads text as nothing."""
    if (folder / "tokenizer.json").exists():
        return  # Its rules cut the text, whatever the class makes of them.
    path = folder / "vocab.json"
    vocabulary = tokenizer.get_vocab()
    written = read_json_object(path) if path.exists() else {}
    lacking = [token for token, index in written.items() if vocabulary.get(token) != index]
    if lacking:
        raise InputError(
            f"has {len(written)} tokens in vocab.json, of which transformers' {type(tokenizer).__name__} "
            f"lacks {len(lacking)}, such as {lacking[0]!r}",
            where=where,
            remedy=SAVE_AGAIN,
        )
    if type(tokenizer) is PreTrainedTokenizerFast:
        return
    ids = tokenizer.encode(SAMPLE, add_special_tokens=False)
    whole = written.keys() >= set(ByteLevel.alphabet())
    read = tokenizer.decode(ids) if whole or not ids else SAMPLE
    if read != SAMPLE:
        raise InputError(
            f"has a tokenizer that, as {type(tokenizer).__name__}, reads {SAMPLE!r} as {read!r}",
            where=where,
            remedy=SAVE_AGAIN,
        )


def _by_written_rules(backend: Tokenizer, folder: Path) -> Tokenizer:
    """Return the tokenizer with the rules that its tokenizer.json cuts and joins text by, if there is one."""
    path = folder / "tokenizer.json"
    if not path.exists():
        return backend
    document, written = json.loads(backend.to_str()), read_json_object(path)
    parts = {part: written.get(part) for part in ("normalizer", "pre_tokenizer", "model", "decoder")}
    if _is_berts(parts["normalizer"]) and _is_berts(document["normalizer"]):
        del parts["normalizer"]  # Its settings are those of tokenizer_config.json in every class that has it.
    document |= parts
    document["post_processor"] = document["post_processor"] or written.get("post_processor")
    prefix = read_settings(folder).get("add_prefix_space")
    if isinstance(prefix, bool):
        document["pre_tokenizer"] = _prefixed(document["pre_tokenizer"], prefix)
        if not prefix:
            document["normalizer"] = _without_prefix(document["normalizer"])
    return Tokenizer.from_str(json.dumps(document))


def _is_berts(rule: dict[str, Any] | None) -> bool:
    return rule is not None and rule["type"] == "BertNormalizer"


def _prefixed(rule: dict[str, Any] | None, prefix: bool) -> dict[str, Any] | None:
    """Return a pre-tokenizer that puts a space before a text, or none, as `add_prefix_space` asks."""
    kind = rule and rule["type"]
    if rule and kind == "ByteLevel":
        return {**rule, "add_prefix_space": prefix}
    if rule and kind == "Metaspace" and not prefix:
        return {**rule, "prepend_scheme": "never"}
    return rule


def _without_prefix(rule: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a normalizer that puts nothing before a text."""
    if rule and rule["type"] == "Sequence":
        return {**rule, "normalizers": [part for part in rule["normalizers"] if part["type"] != "Prepend"]}
    return None if rule and rule["type"] == "Prepend" else rule


def lower_first(backend: Tokenizer) -> None:
    """Make a tokenizer's texts lower case before all else, if none of its rules does so."""
    rule = backend.normalizer
    if rule is None or b'"Lowercase"' not in rule.__getstate__():
        backend.normalizer = Sequence([Lowercase(), *([] if rule is None else [rule])])


def read_settings(folder: Path) -> dict[str, Any]:
    """Return what tokenizer_config.json says, nothing where there is none."""
    path = folder / "tokenizer_config.json"
    return read_json_object(path) if path.exists() else {}


def _without(backend: Tokenizer, folder: Path) -> Tokenizer:
    """Return the tokenizer without the added tokens that none of its files names."""
    if any(folder.glob("*.model")):
        return backend  # What such a file names is not in JSON.
    document = json.loads(backend.to_str())
    pieces = document["model"]["vocab"]  # Unigram's are pairs of a piece and its score.
    known = {*_spelt(folder), *(pieces if isinstance(pieces, dict) else map(itemgetter(0), pieces))}
    kept = [entry for entry in document["added_tokens"] if entry["content"] in known]
    if len(kept) == len(document["added_tokens"]):
        return backend
    document["added_tokens"] = kept
    return Tokenizer.from_str(json.dumps(document))


def _spelt(folder: Path) -> Iterator[str]:
    """Yield every string in the small JSON files of a tokenizer, and the added tokens of tokenizer.json."""
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if (folder / name).exists():
            yield from _strings(read_json_object(folder / name))
    if (folder / "tokenizer.json").exists():
        yield from _strings(read_json_object(folder / "tokenizer.json").get("added_tokens", []))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)


def _named_by_config(
    source: Path, config: Mapping[str, Any], folder: Path, backend: Tokenizer, special: Mapping[str, str]
) -> dict[str, str]:
    """Return BOS and EOS by the model's configuration, where no file of the tokenizer mentions them.

    Only a token that is found by its spelling anyway is taken: naming another would change how text is cut.
    """
    mentioned = read_settings(folder)
    generation = source / "generation_config.json"
    documents = [config, read_json_object(generation) if generation.exists() else {}]
    added = backend.get_added_tokens_decoder()
    found: dict[str, str] = {}
    for name in ("bos_token", "eos_token"):
        if name in special or name in mentioned:
            continue
        for document in documents:
            value = document.get(f"{name}_id")
            index = value[0] if isinstance(value, list) and value else value
            if type(index) is int and index in added and name not in found:
                found[name] = added[index].content
    return found
