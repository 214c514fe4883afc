"""The text of a run: what its settings name, and which part of it no stage may see."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from roots_compress.configs.data import DataConfig, RecordKind
from roots_compress.data import builtin, builtin_instructions, builtin_pairs
from roots_compress.data.chat.formats import ChatFormat, Turn
from roots_compress.data.documents import ROLES, Document, TextSplit
from roots_compress.data.fingerprint import content_key, without_repeats
from roots_compress.data.kept_back import cut_in_two
from roots_compress.data.sources.files import SUFFIXES
from roots_compress.data.sources.folders import Listing, first_names, list_folder
from roots_compress.data.sources.kinds import records_of
from roots_compress.data.sources.readers import read_documents
from roots_compress.data.sources.records import Records
from roots_compress.data.streamed import StreamedDocuments, streamed
from roots_compress.errors import InputError, Text, printable, recipe_key
from roots_compress.io.atomic import real_path

MOST_HELD_OUT = 10_000
"""Documents of a corpus that is streamed which are held out: these are kept in memory."""

BUILTIN: dict[RecordKind, tuple[Callable[[], tuple[Document, ...]], str]] = {
    "text": (builtin.builtin_documents, builtin.DESCRIPTION),
    "pairs": (builtin_pairs.builtin_pairs, builtin_pairs.DESCRIPTION),
    "instructions": (builtin_instructions.builtin_instructions, builtin_instructions.DESCRIPTION),
}
"""What is read where no files are named, and what it is in words."""


def load_text(
    config: DataConfig, *, seed: int, kind: RecordKind = "text", labels: Sequence[str] = ()
) -> TextSplit:
    """Read the text a run trains on, and hold out what it is judged by.

    Without `config.train` the built-in corpus is read. With `config.eval`, those files are held out whole;
    without it, `config.eval_fraction` of the documents is, drawn by `seed`. A single document is cut in two
    instead, its end held out. Documents that say the same are read once.

    Args:
        labels: names of the labels, where each text must have one.

    Raises:
        InputError: a file cannot be read, holds no text, or is named twice; held-out documents stand in the
            training text as well; or a record does not hold what its kind asks for.
    """
    records = records_of(kind, config, labels)
    _refuse_repeated_paths([*config.train, *config.eval])
    corpus = streamed(config.train) if kind == "text" and config.text_column == "text" else None
    train: Sequence[Document]
    if corpus is not None:
        train, name = corpus[0], printable(config.train[0].name)
    elif config.train:
        found, name = _read_paths(config, "train", records)
        read = [document for part in found for document in part]
        train = without_repeats(read)
        repeats = len(read) - len(train)
        name += f" without {repeats:,} repeated documents" if repeats else ""
    elif kind in BUILTIN:
        documents, name = BUILTIN[kind]
        train = documents()
    else:
        raise _unsuited(records, "train")
    if labels and len(seen := _labels_of(train)) == 1:
        raise InputError(
            f"every {'text' if train[0].tags is None else 'word'} has the label '{labels[seen.pop()]}'",
            where=recipe_key("data", "train"),
            remedy="Give texts of two labels or more.",
        )
    if config.eval:
        held_out, names = _separate_documents(config, train, records)
        origin = f"from {names}"
    elif corpus is not None:
        train, held_out = _end_held_out(*corpus, config)
        origin = "the last documents"
    elif len(train) == 1:
        train, held_out = _cut_in_two(train[0], config)
        origin = "the end of the one document there is"
    else:
        train, held_out = _split(train, config.eval_fraction, seed)
        origin = f"{config.eval_fraction:.1%} of the documents, drawn by seed {seed}"
    description = f"{name}: {_amount(train)}; held out: {_amount(held_out)}, {origin}"
    return TextSplit(_in_format(train, config), _in_format(held_out, config), description, kind)


def load_held_out(
    config: DataConfig, *, seed: int, kind: RecordKind = "text", labels: Sequence[str] = ()
) -> TextSplit:
    """Read the text that a model is measured on and not trained on: with `config.eval`, nothing else is read.

    Raises:
        InputError: as `load_text` does.
    """
    records = records_of(kind, config, labels)
    if not config.eval:
        if kind not in BUILTIN and not config.train:
            # Of the files in `train` a part would be read.
            raise _unsuited(records, "eval")
        return load_text(config, seed=seed, kind=kind, labels=labels)
    _refuse_repeated_paths(config.eval)
    held_out, names = _separate_documents(config, (), records)
    return TextSplit((), _in_format(held_out, config), f"{names}: {_amount(held_out)}", kind)


def _labels_of(documents: Sequence[Document]) -> set[int]:
    """Return the numbers of the labels that texts or their words have."""
    found: set[int] = set()
    for each in documents:
        found |= set(each.tags.numbers) if each.tags is not None else {each.label or 0}
    return found


def _in_format(documents: Sequence[Document], config: DataConfig) -> Sequence[Document]:
    """Return the documents, conversations with the chat format that the settings give in plain fields."""
    if config.chat is None or isinstance(documents, StreamedDocuments):
        return documents
    given = {role: getattr(config.chat, role) for role in ROLES}
    turns = {role: Turn(turn.prefix, turn.suffix) for role, turn in given.items()}
    chat = ChatFormat(turns, config.chat.separator)
    return tuple(replace(each, format=chat) if each.is_chat else each for each in documents)


def _unsuited(records: Records, key: Literal["train", "eval"]) -> InputError:
    """Return the error of a run without files of its records; `key` is where they are to be named."""
    return InputError(
        f"the built-in corpus {records.texts_of_files}",
        where=recipe_key("data", key),
        remedy=f"Name CSV, JSON, Parquet or Arrow files of records with {records.needed}.",
    )


def _read_paths(
    config: DataConfig, key: Literal["train", "eval"], records: Records
) -> tuple[list[list[Document]], str]:
    """Return the documents of each file, or of the data files under a folder, and in words what was read.

    Raises:
        InputError: a file cannot be read, or there is no text in any of them.
    """
    paths: tuple[Path, ...] = getattr(config, key)
    documents: list[list[Document]] = []
    files: list[str] = []
    folders: list[str] = []
    empty: list[str] = []
    for path in paths:
        listing = Listing(None, [path])
        if os.path.isdir(path):  # noqa: PTH112 (unlike Path's, it raises nothing for a name that is too long)
            listing = list_folder(path, records)
        documents.append([])
        for file in listing.files:
            found = read_documents(file, records)
            documents[-1] += found
            if not found:
                empty.append(file.name)
        (files if listing.folder is None else folders).append(printable(path.name) + listing.in_words())
    if not any(documents):
        one = len(paths) == 1
        ends = f" in files ending in {', '.join(SUFFIXES)}" if one and os.path.isdir(paths[0]) else ""  # noqa: PTH112
        raise InputError(
            f"there is no text{ends}{listing.in_words() if one else ' in any of the files'}",
            where=paths[0] if one else recipe_key("data", key),
            remedy="Name a file that holds text.",
        )
    words = ", ".join([*([first_names(files)] if files else []), *folders])
    return documents, words + (f" ({first_names(empty)} without text)" if empty else "")


def _refuse_repeated_paths(paths: Sequence[Path]) -> None:
    seen: set[Path] = set()
    for path in paths:
        resolved = real_path(path)
        # A folder that is named stands for every file under it.
        if any(resolved.is_relative_to(other) or other.is_relative_to(resolved) for other in seen):
            raise InputError(
                "the path is named twice, itself or within a folder that is named too",
                where=path,
                remedy=Text(
                    "Name each file once, either in ",
                    recipe_key("data", "train"),
                    " or in ",
                    recipe_key("data", "eval"),
                    ".",
                ),
            )
        seen.add(resolved)


def _separate_documents(
    config: DataConfig, train: Iterable[Document], records: Records
) -> tuple[tuple[Document, ...], str]:
    """Return the evaluation files' documents, none of which may be in the training text, and their names."""
    found, names = _read_paths(config, "eval", records)
    held = {content_key(document) for part in found for document in part}
    trained = {key for key in map(content_key, train) if key in held}
    held_out: list[Document] = []
    for path, part in zip(config.eval, found, strict=True):
        documents = without_repeats(part)
        shared = [document for document in documents if content_key(document) in trained]
        if shared:
            begins = printable(" ".join(shared[0].text[:400].split())[:60])
            raise InputError(
                f"the training text holds {len(shared)} of its {len(documents)} documents too; "
                f"the first begins with '{begins}'",
                where=path,
                remedy="Take them out of one of the two: text a model has seen says nothing about new text.",
            )
        held_out += documents
    return without_repeats(held_out), names


def _end_held_out(
    documents: StreamedDocuments, datasheet: dict[str, Any], config: DataConfig
) -> tuple[StreamedDocuments, tuple[Document, ...]]:
    """Hold out the last documents of a corpus, which are in a drawn order.

    Raises:
        InputError: a document may be in the corpus twice, or there is one alone.
    """
    count = min(MOST_HELD_OUT, max(1, round(len(documents) * config.eval_fraction)))
    repeats = any(source["repeats"] > 1 for source in datasheet["sources"])
    if repeats or not datasheet["settings"]["duplicates"]["exact"] or count == len(documents):
        why = "has one document" if count == len(documents) else "may hold a document more than once"
        raise InputError(
            f"the corpus {why}, so no part of it can be held out",
            where=config.train[0],
            remedy=Text("Name held-out files in ", recipe_key("data", "eval"), "."),
        )
    held_out = tuple(documents[len(documents) - count :])
    size = documents.text_bytes - sum(len(document.text.encode()) for document in held_out)
    return documents.first(len(documents) - count, size), held_out


def _split(
    documents: Sequence[Document], fraction: float, seed: int
) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
    """Hold out a fraction of two or more documents, at least one; both sides keep their order."""
    count = max(1, round(len(documents) * fraction))
    chosen = set(np.random.default_rng(seed).permutation(len(documents))[:count].tolist())
    return (
        tuple(document for index, document in enumerate(documents) if index not in chosen),
        tuple(document for index, document in enumerate(documents) if index in chosen),
    )


def _cut_in_two(document: Document, config: DataConfig) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
    """Hold out the end of the only document, cut near where `eval_fraction` of it remains."""
    parts = cut_in_two(document, config.eval_fraction)
    if parts is None:
        raise InputError(
            "the text is one document, which cannot be cut to hold a part out",
            where=config.train[0],
            remedy=Text("Give more documents, or name held-out files in ", recipe_key("data", "eval"), "."),
        )
    return (parts[0],), (parts[1],)


def _amount(documents: Sequence[Document]) -> str:
    """Return the size of some text in words."""
    if isinstance(documents, StreamedDocuments):
        size = documents.text_bytes
    else:
        size = sum(len(document.text.encode()) for document in documents)
    return f"{len(documents):,} document{'s' if len(documents) > 1 else ''} ({size:,} bytes)"
