"""The text of a run: what its settings name, and which part of it no stage may see."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from roots_compress.data.builtin import DESCRIPTION, builtin_documents
from roots_compress.data.config import DataConfig
from roots_compress.data.documents import Document, TextSplit
from roots_compress.data.fingerprint import content_key, without_repeats
from roots_compress.data.readers import SUFFIXES, read_documents
from roots_compress.errors import InputError
from roots_compress.run.atomic import real_path

# Where to cut the one document there is: the end of a paragraph, or else of a line, or of a word.
BREAKS = (r"\n[ \t]*\n\s*", r"\n\s*", r"\s+")


def load_text(config: DataConfig, *, seed: int) -> TextSplit:
    """Read the text a run trains on, and hold out what it is judged by.

    Without `config.train` the built-in corpus is read. With `config.eval`, those files are held out whole;
    without it, `config.eval_fraction` of the documents is, drawn by `seed`. A single document is cut in two
    instead, its end held out. Documents that say the same are read once.

    Raises:
        InputError: a file cannot be read, holds no text, or is named twice; or held-out documents stand in
            the training text as well.
    """
    _refuse_repeated_paths([*config.train, *config.eval])
    if config.train:
        documents = [
            document for path in config.train for document in _documents_of(path, config.text_column)
        ]
        train = without_repeats(documents)
        repeats = len(documents) - len(train)
        name = _names(config.train) + (f" without {repeats:,} repeated documents" if repeats else "")
    else:
        train, name = builtin_documents(), DESCRIPTION
    if config.eval:
        held_out = _separate_documents(config, train)
        origin = f"from {_names(config.eval)}"
    elif len(train) == 1:
        train, held_out = _cut_in_two(train[0], config)
        origin = "the end of the one document there is"
    else:
        train, held_out = _split(train, config.eval_fraction, seed)
        origin = f"{config.eval_fraction:.1%} of the documents, drawn by seed {seed}"
    return TextSplit(train, held_out, f"{name}: {_amount(train)}; held out: {_amount(held_out)}, {origin}")


def _documents_of(path: Path, text_column: str) -> list[Document]:
    """Return the documents of a file, or of all readable files under a folder in the order of their names."""
    files = [path]
    if os.path.isdir(path):  # noqa: PTH112 (unlike Path's, it raises nothing for a name that is too long)
        files = _files_under(path)
    documents = [document for file in files for document in read_documents(file, text_column)]
    if not documents:
        what = f"no text in files ending in {', '.join(SUFFIXES)}" if files != [path] else "no text"
        raise InputError(f"there is {what}", where=path, remedy="Name a file that holds text.")
    return documents


def _files_under(folder: Path) -> list[Path]:
    """Return the text files under a folder, sorted.

    Raises:
        InputError: a folder in it cannot be listed; without what is in there the text would be another.
    """

    def refuse(error: OSError) -> NoReturn:
        raise InputError(
            f"the folder cannot be listed: {error.strerror}",
            where=error.filename or folder,
            remedy="Make it readable, or name the files that are meant.",
        ) from error

    files = [Path(parent, name) for parent, _, names in os.walk(folder, onerror=refuse) for name in names]
    return sorted(file for file in files if file.suffix.lower() in SUFFIXES and file.is_file())


def _refuse_repeated_paths(paths: Sequence[Path]) -> None:
    seen: set[Path] = set()
    for path in paths:
        resolved = real_path(path)
        # A folder that is named stands for every file under it.
        if any(resolved.is_relative_to(other) or other.is_relative_to(resolved) for other in seen):
            raise InputError(
                "the path is named twice, itself or within a folder that is named too",
                where=path,
                remedy="Name each file once, either in data.train or in data.eval.",
            )
        seen.add(resolved)


def _separate_documents(config: DataConfig, train: Iterable[Document]) -> tuple[Document, ...]:
    """Return the documents of the evaluation files, none of which may stand in the training text."""
    trained = {content_key(document) for document in train}
    held_out: list[Document] = []
    for path in config.eval:
        documents = without_repeats(_documents_of(path, config.text_column))
        shared = sum(content_key(document) in trained for document in documents)
        if shared:
            raise InputError(
                f"{shared} of its {len(documents)} documents also stand in the training text",
                where=path,
                remedy="Take them out of one of the two: text a model has seen says nothing about new text.",
            )
        held_out += documents
    return without_repeats(held_out)


def _split(
    documents: tuple[Document, ...], fraction: float, seed: int
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
    if len(document.spans) == 1:
        text = document.text.strip()
        target, slack = len(text) * (1 - config.eval_fraction), len(text) * config.eval_fraction / 2
        for pattern in BREAKS:
            cuts = [match for match in re.finditer(pattern, text) if abs(match.end() - target) <= slack]
            if cuts:
                cut = min(cuts, key=lambda match: abs(match.end() - target))
                return (Document.plain(text[: cut.start()]),), (Document.plain(text[cut.end() :]),)
    raise InputError(
        "the text is one document, which cannot be cut to hold a part out",
        where=config.train[0],
        remedy="Give more documents, or name held-out files in data.eval.",
    )


def _names(paths: Sequence[Path]) -> str:
    """Return the names of up to three files, and how many there are beside."""
    return ", ".join(path.name for path in paths[:3]) + (
        f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    )


def _amount(documents: Sequence[Document]) -> str:
    """Return the size of some text in words."""
    size = sum(len(document.text.encode()) for document in documents)
    return f"{len(documents):,} document{'s' if len(documents) > 1 else ''} ({size:,} bytes)"
