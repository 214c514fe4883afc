"""Loads a checkpoint's tokenizer without its weights and usually without torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from roots_compress.checkpoints.gguf.tokenizer import gguf_tokenizer
from roots_compress.checkpoints.inspect import CONFIG, OLD_VOCABULARIES, ROOTS, TOKENIZER, TOKENIZER_FILES
from roots_compress.checkpoints.numbered_pieces import models_of_pieces, tokenizer_of_pieces
from roots_compress.checkpoints.sentence_transformers.settings import MODULES, makes_lower_case
from roots_compress.checkpoints.source import SourceInfo
from roots_compress.checkpoints.source_tokenizer import (
    OPENS,
    SAVE_AGAIN,
    as_written,
    lower_first,
    read_settings,
)
from roots_compress.data.languages import set_target_tokenizer, target_tokenizer
from roots_compress.data.special_tokens import open_with_bos, opening_ids
from roots_compress.errors import InputError, RootsError
from roots_compress.io.atomic import system_errors
from roots_compress.io.genai_config import GENAI_CONFIG
from roots_compress.io.json_files import read_json_object, regular_file
from roots_compress.io.names import in_utf8
from roots_compress.io.temporary import temporary_folder

TOKENIZER_CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
TARGETS = "target_tokenizer.json"
"""The tokenizer of targets, if it differs; next to tokenizer.json."""
JSON_FILES = (TOKENIZER, TARGETS, "vocab.json", "added_tokens.json", "special_tokens_map.json")
OTHER_FILES = ("tokenizer.model", *OLD_VOCABULARIES, "merges.txt", TEMPLATE)
MAX_TEMPLATE_BYTES = 1 << 20
CONFIG_KEYS = frozenset(
    """
    add_bos_token add_eos_token add_prefix_space added_tokens_decoder additional_special_tokens
    chat_template clean_up_tokenization_spaces do_lower_case errors extra_ids extra_special_tokens
    keep_accents legacy mask_token_sent model_input_names model_max_length offset padding_side
    remove_space sp_model_kwargs spaces_between_special_tokens split_by_punct split_special_tokens
    src_lang strip_accents tgt_lang tokenize_chinese_chars tokenizer_class truncation_side
    use_default_system_prompt
    """.split()  # noqa: SIM905
)
"""Keys of tokenizer_config.json that transformers gets to see, beside special tokens (`bos_token`, ...).
Others name files, classes or code, or change nothing."""


def load_tokenizer(source: SourceInfo) -> PreTrainedTokenizerFast:
    """Return a checkpoint's tokenizer.

    Raises:
        InputError: it cannot be read, or is not of the fast kind.
        StageError: there is no room for temporary files.
    """
    if source.kind == "roots":
        return load_tokenizer_beside(source.path)
    if source.kind == "gguf":
        tokenizer = gguf_tokenizer(source.path)
        tokenizer.name_or_path = str(source.path)
        return tokenizer
    return _of_family(source.folder_with(*TOKENIZER_FILES), source.config, source)


def _of_family(
    folder: Path, config: Mapping[str, Any], source: SourceInfo | None = None
) -> PreTrainedTokenizerFast:
    """Return the tokenizer of another program's folder, by the class of its family."""
    home, modules = (source.path, source.folder_with(MODULES)) if source else (folder, folder)
    with temporary_folder() as aside:
        _bring_files(folder, aside)
        if models := models_of_pieces(aside, config):
            with _faults_told(aside, folder):
                return tokenizer_of_pieces(aside, models, folder)
        # From these transformers takes the class that reads the files.
        named = {key: config.get(key) for key in ("model_type", "tokenizer_class")}
        said = {key: value for key, value in named.items() if isinstance(value, str)}
        (aside / CONFIG).write_text(json.dumps(said), encoding="utf-8")
        loaded = _loaded(aside, folder, by_class=True)
        with _faults_told(aside, folder):
            tokenizer = as_written(loaded, aside, home, config)
        if makes_lower_case(modules):
            lower_first(tokenizer.backend_tokenizer)
        return tokenizer


def load_tokenizer_beside(folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a folder of this project's writing, or of another program's with a graph.

    Raises:
        InputError: it cannot be read.
        StageError: there is no room for temporary files.
    """
    config = read_json_object(folder / CONFIG) if (folder / CONFIG).exists() else {}
    of_genai = not config and (folder / GENAI_CONFIG).exists()
    if of_genai or ("model_type" in config and not _is_ours(config)):
        return _of_family(folder, config)
    with temporary_folder() as aside:
        _bring_files(folder, aside)
        tokenizer = _loaded(aside, folder)
    if OPENS not in read_settings(folder) and _is_ours(config):
        # Written before tokenizer.json decided what opens a text: then BOS did, where there was one.
        open_with_bos(tokenizer)
    return tokenizer


def _is_ours(config: Mapping[str, Any]) -> bool:
    """Whether the configuration of a checkpoint or graph is of this project's writing."""
    return config.get("model_type") == ROOTS or ROOTS in config


def _bring_files(source: Path, aside: Path) -> None:
    """Copy a tokenizer's files, after checking them, to a folder without other files.

    Raises:
        InputError: a file is not regular, or not the JSON it should be.
    """
    for name in (*JSON_FILES, *OTHER_FILES):
        path = source / name
        if not (path.exists() or path.is_symlink()) or (
            name in OLD_VOCABULARIES and (aside / TOKENIZER).exists()
        ):
            continue
        size = regular_file(path)
        document = read_json_object(path) if name in JSON_FILES else {}
        if name == TEMPLATE and size > MAX_TEMPLATE_BYTES:
            raise InputError(
                f"has {size} bytes, too many for a chat template",
                where=path,
                remedy="Copy the file again, or leave it out.",
            )
        if name == TOKENIZER and _made_steady(document):
            (aside / name).write_text(json.dumps(document), encoding="utf-8")
        else:
            shutil.copyfile(path, aside / name)
    path = source / TOKENIZER_CONFIG
    if path.exists() or path.is_symlink():
        given = read_json_object(path).items()
        settings = {key: value for key, value in given if key in CONFIG_KEYS or key.endswith("_token")}
        if not isinstance(settings.get("chat_template"), str | list | dict | None):
            raise InputError("chat_template is no text", where=path, remedy="Correct it, or leave it out.")
        (aside / TOKENIZER_CONFIG).write_text(json.dumps(settings), encoding="utf-8")


def _made_steady(document: dict[str, Any]) -> bool:
    """Remove dropout, truncation and padding from a tokenizer.json; return whether there were any."""
    model = document.get("model")
    places: list[tuple[dict[str, Any], tuple[str, ...]]] = [(document, ("truncation", "padding"))]
    if isinstance(model, dict):
        places.append((model, ("dropout", "alpha", "nbest_size")))
    found = [(place, key) for place, keys in places for key in keys if place.get(key) is not None]
    for place, key in found:
        place[key] = None
    return bool(found)


def _loaded(folder: Path, source: Path, *, by_class: bool = False) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a folder with only checked files."""
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    has_json = (folder / TOKENIZER).exists()
    with _faults_told(folder, source), quiet_transformers():
        if has_json and not (by_class and _class_is_fast(folder)):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, **local)
        elif has_json or _class_is_fast(folder):
            # It imports torch, which a tokenizer.json does without.
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        else:
            tokenizer = None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(
            "has a tokenizer that is not of the fast kind", where=source, remedy="Save a tokenizer.json."
        )
    if (folder / TARGETS).exists():
        special = tokenizer.special_tokens_map
        with _faults_told(folder, source):
            target = PreTrainedTokenizerFast(tokenizer_file=str(folder / TARGETS), **special)
        set_target_tokenizer(tokenizer, target)
    tokenizer.name_or_path = str(source)
    for note in ("is_local", "local_files_only", "name_or_path"):
        # Arguments of the loading are not properties of the tokenizer, and must not be saved with it.
        tokenizer.init_kwargs.pop(note, None)
    return tokenizer


@contextmanager
def _faults_told(folder: Path, source: Path) -> Iterator[None]:
    """Within the block, turn every exception of the libraries into an InputError about the source."""
    try:
        yield
    except RootsError:
        raise
    except Exception as error:  # The tokenizers library raises bare exceptions for every fault in a file.
        raise InputError(
            f"has a tokenizer that cannot be read ({type(error).__name__}: {_shortened(error)})",
            where=source,
            remedy="Copy the tokenizer's files again. Where tokenizer.json is right, set tokenizer_class in "
            "tokenizer_config.json to PreTrainedTokenizerFast."
            if (folder / TOKENIZER).exists()
            else SAVE_AGAIN,
        ) from error


def _class_is_fast(folder: Path) -> bool:
    """Whether the class that the files name, or their model's, reads a tokenizer.json; Marian's does not."""
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

    paths = [path for name in (TOKENIZER_CONFIG, CONFIG) if (path := folder / name).exists()]
    documents = [read_json_object(path) for path in paths]
    named = [each["tokenizer_class"] for each in documents if each.get("tokenizer_class")]
    named += [TOKENIZER_MAPPING_NAMES.get(str(each.get("model_type"))) for each in documents]
    found = next((name for name in named if isinstance(name, str)), None)
    of_class = None if found is None else tokenizer_class_from_name(found)
    return of_class is None or issubclass(of_class, PreTrainedTokenizerFast)


def _shortened(error: Exception) -> str:
    """Return the first part of a message, which may quote a whole file."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + "..."


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write a tokenizer's files so that transformers 4 and 5 read them alike."""
    with system_errors(directory / TOKENIZER), in_utf8(directory) as folder:
        tokenizer.save_pretrained(folder)
        if (target := target_tokenizer(tokenizer)) is not tokenizer:
            target.backend_tokenizer.save(str(folder / TARGETS))
    path = directory / TOKENIZER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    # transformers 5 writes a new name of the class, which transformers 4 and what builds on it refuse.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config[OPENS] = bool(opening_ids(tokenizer))
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_vocabulary(tokenizer: PreTrainedTokenizerFast, vocab_size: int, where: Path) -> None:
    """Check that each of the tokenizer's tokens has its row among the embedding's.

    Raises:
        InputError: it has none, or more than there are rows.
    """
    vocabulary = tokenizer.get_vocab()
    largest = max(vocabulary.values(), default=-1)
    if largest < 0:
        raise InputError(
            "has a tokenizer without a vocabulary", where=where, remedy="Copy the tokenizer's files again."
        )
    if largest >= vocab_size:
        beyond = sorted((row, token) for token, row in vocabulary.items() if row >= vocab_size)
        named = ", ".join(repr(token) for _, token in beyond[:5])
        remedy = "Tokenizer and model belong to different checkpoints."
        if all(row in tokenizer.added_tokens_decoder for row, _ in beyond):
            remedy = (
                "Tokens were added without rows for them: remove them from the tokenizer's files, or give "
                "them rows with transformers (resize_token_embeddings) and save the model again."
            )
        raise InputError(
            f"the tokenizer has token number {largest}, but the embedding has {vocab_size} rows, "
            f"none of them for {named}{_told_in(where, beyond[0][1])}",
            where=where,
            remedy=remedy,
        )


def _told_in(directory: Path, token: str) -> str:
    """Return ` (FILE)` for the first tokenizer file that names a token."""
    spellings = {json.dumps(token), json.dumps(token, ensure_ascii=False)}
    for name in (*JSON_FILES, TOKENIZER_CONFIG):
        path = directory / name
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            if any(spelling in text for spelling in spellings):
                return f" ({name})"
    return ""


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within the block transformers draws no progress bars and prints no load reports."""
    bars, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
