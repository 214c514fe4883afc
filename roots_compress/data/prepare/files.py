"""The files that a corpus is made from: found, hashed once, and read as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from roots_compress.configs.prepare import PrepareConfig, name_of
from roots_compress.data.prepare.reading import SourceFiles
from roots_compress.data.sources.folders import list_folder
from roots_compress.data.sources.plain import PlainTexts
from roots_compress.data.sources.readers import stream_documents
from roots_compress.errors import InputError, printable
from roots_compress.events import Events
from roots_compress.io.disk import FileHashes
from roots_compress.io.json_files import regular_file
from roots_compress.progress import track
from roots_compress.results import Json


@dataclass(frozen=True)
class Files:
    """What a corpus is made from: files as they are now."""

    sources: tuple[SourceFiles, ...]
    held_out: SourceFiles
    hashes: FileHashes

    @property
    def all(self) -> tuple[SourceFiles, ...]:
        """The sources, and the held-out text."""
        return (*self.sources, self.held_out)

    def described(self, source: SourceFiles) -> list[dict[str, Json]]:
        """Return name, bytes and sha256 of a source's files."""
        return [
            {"name": name, "bytes": size, "sha256": self.hashes.sha256(path)}
            for name, path, size in source.files
        ]


def find_files(config: PrepareConfig, events: Events) -> Files:
    """Return the files of all sources, each hashed once."""
    column, held_out = config.text_column, config.decontamination.held_out
    sources = [
        SourceFiles(name_of(source), tuple(_files_of(source.path, column))) for source in config.ordered
    ]
    held = SourceFiles("held out", tuple(each for path in held_out for each in _files_of(path, column)))
    hashes = FileHashes()
    paths = [path for each in (*sources, held) for _, path, _ in each.files]
    for path in track(paths, events, "hash sources"):
        hashes.sha256(path)
    return Files(tuple(sources), held, hashes)


def _files_of(path: Path, text_column: str) -> Iterator[tuple[str, Path, int]]:
    """Yield name, path and bytes of the data files that a path names.

    Raises:
        InputError: there is none, or one cannot be read.
    """
    found = list_folder(path, PlainTexts(text_column)).files if path.is_dir() else [path]
    if not found:
        raise InputError("the folder has no data files", where=path, remedy="Name a folder that has some.")
    for file in found:
        size = regular_file(file)
        yield printable(str(file.relative_to(path)) if path.is_dir() else file.name), file, size


def texts_of(source: SourceFiles, text_column: str) -> Iterator[str]:
    """Yield the text of each document of a source."""
    for _, path, _ in source.files:
        for _, document in stream_documents(path, PlainTexts(text_column)):
            yield document.text
