"""Make a corpus of sources: read and examine, find duplicates, mix and shuffle, write shards and a datasheet.

Each pass goes on from where a killed program left it, in a hidden folder next to the corpus, and needs the
same memory for any amount of text. Only the hashes of held-out texts are in memory as a whole.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow

from roots_compress.configs.prepare import PrepareConfig
from roots_compress.data.prepare.checks import check_unchanged, refuse_empty
from roots_compress.data.prepare.datasheet import (
    corpus_json,
    markdown,
    settings_json,
    source_json,
)
from roots_compress.data.prepare.duplicates import Marks, mark_alike
from roots_compress.data.prepare.examiner import Examiner, examining, held_out_runs
from roots_compress.data.prepare.files import Files, find_files, texts_of
from roots_compress.data.prepare.journal import Journal
from roots_compress.data.prepare.mixing import repeats
from roots_compress.data.prepare.reading import (
    DIGEST_VALUES,
    DIGESTS,
    ENTRY,
    EXACT_KEYS,
    INDEX,
    REMOVED,
    SIGNATURES,
    TEXTS,
    Reading,
    counters,
    near_keys,
)
from roots_compress.data.prepare.writing import BUCKET_BYTES, Buckets, kept_bytes, write_shards
from roots_compress.data.sources.prepared import DATASHEET, checked_shards, read_datasheet
from roots_compress.errors import InputError, Text, recipe_key
from roots_compress.events import Events
from roots_compress.io.atomic import make_folders, move_folder, remove_folder, sync_tree, write_text
from roots_compress.io.json_files import read_json_object
from roots_compress.progress import bar
from roots_compress.results import Json
from roots_compress.run.keys import canonical_json, explain_change, hash_json
from roots_compress.run.lock import WriterLock
from roots_compress.run.outputs import refuse_inside, unwritten
from roots_compress.system.machine import code_sha256, library_versions
from roots_compress.system.threads import default_threads

KEY, MARKS, SCRATCH, CORPUS = "key.json", "marks", "scratch", "corpus"
REMOVED_NAME = "removed.log.zst"
COPY_BYTES = 1 << 20
MEGABYTE = 1 << 20
BYTES_FOR_PROCESSES = 1 << 24
"""Sources of fewer bytes are examined before other processes have started."""
MOST_PROCESSES = 8
"""Most processes: each takes about 100 MB, and the reading process can keep about this many busy."""


def prepare(config: PrepareConfig, out: Path, events: Events) -> tuple[dict[str, Any], bool]:
    """Make a corpus, or go on with an unfinished one.

    Args:
        out: the corpus's folder. It appears whole; one of the same settings and sources is checked.

    Returns:
        The datasheet, and whether the corpus was there already.

    Raises:
        InputError: a source cannot be read, nothing is left of it, or `out` holds something else.
        StageError: the disk fails.
    """
    for source in config.sources:
        refuse_inside(out, source.path)
    files = find_files(config, events)
    described = {each.name: files.described(each) for each in files.all}
    key: dict[str, Json] = {"settings": settings_json(config), "files": described}  # type: ignore[dict-item]
    work = out.parent / f".{out.name}.partial"
    if _is_there(out) and not work.exists():
        return _existing(out, key), True
    make_folders(work)
    lock = WriterLock(work, "corpus", "--out")
    lock.acquire()
    is_over = True
    try:
        if _is_there(out):  # An earlier try was killed after its last step, or another command has ended.
            is_over = not (work / KEY).exists()
            found = _existing(out, key)
            is_over = True
            return found, True
        return _prepare(config, out, work, files, key, events), False
    except InputError as error:
        # Work on such sources cannot go on, unless the disk failed.
        cause = error.__cause__
        is_over = is_over and not (isinstance(cause, OSError) and cause.errno)
        raise
    except OSError as error:
        is_over = False
        raise unwritten(error, work, out) from error
    except BaseException:
        is_over = False
        raise
    finally:
        # While the lock is held: the next command would lose its work with this one's.
        if is_over:
            remove_folder(work)
        lock.release()


def _is_there(out: Path) -> bool:
    return out.exists() or out.is_symlink()


def _existing(out: Path, key: dict[str, Json]) -> dict[str, Any]:
    """Return the datasheet of an existing corpus; refuse anything else."""
    datasheet = read_datasheet(out) if out.is_dir() else None
    if datasheet is None:
        raise InputError("output exists already", where=out, remedy="Name a new folder, or remove this one.")
    if datasheet.get("key") != hash_json(key):
        raise InputError(
            "a corpus of other settings or sources is there already",
            where=out,
            remedy="Name a new folder, or remove this one.",
        )
    checked_shards(out, datasheet)
    return datasheet


def _prepare(
    config: PrepareConfig, out: Path, work: Path, files: Files, key: dict[str, Json], events: Events
) -> dict[str, Any]:
    journal = _open(work, key, events)
    sources = files.sources
    held_out, short = held_out_runs(
        texts_of(files.held_out, config.text_column), config.decontamination.ngram
    )
    examiner = Examiner(config, held_out)
    if journal.position.get("pass", "read") == "read":
        size = sum(size for each in sources for _, _, size in each.files)
        processes = _processes(config, size)
        with (
            bar(events, "read and examine (MB)") as progress,
            examining(examiner, held_out, processes) as examine,
        ):
            Reading(journal, sources, config, examine).run(
                lambda done: progress(done // MEGABYTE, max(1, size // MEGABYTE))
            )
        check_unchanged(files, key)
    names = [each.name for each in sources]
    counts = counters(journal.position["counts"], len(names))
    documents = journal.length(INDEX) // ENTRY.itemsize
    if journal.position["pass"] == "duplicates":
        refuse_empty(documents, counts, config.length)
        _mark(config, journal, documents, examiner.minhash.bands, events)
    if journal.position["pass"] == "mix":
        _mix(config, journal, documents, names, events)
    mixed = counters(journal.position["mixed"], len(names))
    averages, buckets = journal.position["averages"], journal.position["buckets"]
    (work / CORPUS).mkdir(exist_ok=True)
    with bar(events, "write shards") as progress:
        shards = write_shards(journal, config, names, buckets, work / CORPUS, progress)
    if not shards:
        raise InputError(
            "the mixture holds no document: none of the few there are was drawn",
            where=recipe_key("sources"),
            remedy=Text("Raise ", recipe_key("max_repeats"), ", or give weights that are less far apart."),
        )
    sheets = [
        source_json(source, files.described(each), first + second, average)
        for source, each, first, second, average in zip(
            config.ordered, sources, counts, mixed, averages, strict=True
        )
    ]
    total_counts = sum((*counts, *mixed), Counter[str]())
    held: dict[str, Json] = {
        "files": files.described(files.held_out),  # type: ignore[dict-item]
        "runs": len(held_out),
        "texts_too_short": short,
    }
    datasheet = corpus_json(config, hash_json(key), sheets, held, shards, total_counts)
    _finish(work, datasheet, out)
    return datasheet


def _processes(config: PrepareConfig, size: int) -> int:
    """Return how many processes examine sources of so many bytes."""
    if config.processes is not None:
        return config.processes
    return min(default_threads(), MOST_PROCESSES) if size >= BYTES_FOR_PROCESSES else 1


def _open(work: Path, key: dict[str, Json], events: Events) -> Journal:
    """Return the journal of an earlier try with the same settings, sources and code, or a new one."""
    whole: dict[str, Json] = {**key, "code": code_sha256(), "versions": dict(library_versions())}
    path, text = work / KEY, canonical_json(whole)
    if path.exists():
        try:
            if path.read_bytes() == text.encode():
                return Journal(work)
            changes = "; ".join(explain_change(read_json_object(path), whole)[:3])
        except (ValueError, InputError) as error:
            changes = str(error)
        events.say(f"begins anew: {changes}")
    for each in work.iterdir():
        if each.is_dir():
            remove_folder(each)
        elif not each.name.startswith("."):
            each.unlink()
    write_text(path, text)
    return Journal(work)


def _mark(config: PrepareConfig, journal: Journal, documents: int, bands: int, events: Events) -> None:
    """Find duplicates by one kind of key after another; the journal is then at the next pass."""
    near = range(bands if config.duplicates.near else 0)
    passes = [(EXACT_KEYS, DIGESTS, DIGEST_VALUES, 1.0)] if config.duplicates.exact else []
    width, threshold = config.duplicates.hashes, config.duplicates.threshold
    passes += [(near_keys(band), SIGNATURES, width, threshold) for band in near]
    folder, counts = journal.folder, journal.position["counts"]
    first: int = journal.position["band"]
    with Marks(folder / MARKS, documents) as marks, bar(events, "find duplicates") as progress:
        for number, (keys, signatures, values, least) in enumerate(passes[first:], start=first):
            mark_alike(
                folder / keys,
                folder / signatures,
                marks,
                width=values,
                threshold=least,
                exact=keys == EXACT_KEYS,
                scratch=folder / SCRATCH,
            )
            journal.changed(MARKS, {"pass": "duplicates", "band": number + 1, "counts": counts})
            progress(number + 1, len(passes))
        sizes = kept_bytes(folder / INDEX, marks, len(config.sources))
    averages = repeats(sizes, [source.weight for source in config.ordered], config.max_repeats)
    mixture = sum(size * average for size, average in zip(sizes, averages, strict=True))
    buckets = max(1, math.ceil(mixture / BUCKET_BYTES))
    position: dict[str, Json] = {
        "pass": "mix",
        "counts": counts,
        "averages": list(averages),
        "buckets": buckets,
    }
    journal.remove([name for keys, signatures, _, _ in passes for name in (keys, signatures)], position)


def _mix(config: PrepareConfig, journal: Journal, documents: int, names: list[str], events: Events) -> None:
    averages, buckets = journal.position["averages"], journal.position["buckets"]
    with Marks(journal.folder / MARKS, documents) as marks, bar(events, "mix and shuffle") as progress:
        mixed = Buckets(journal, config, names, averages, buckets).run(marks, progress)
    position = {**journal.position, "pass": "write", "mixed": mixed}
    journal.commit(position)
    journal.remove([TEXTS, INDEX], position)


def _finish(work: Path, datasheet: dict[str, Any], out: Path) -> None:
    """Write the corpus's datasheet and page, and rename its folder."""
    corpus = work / CORPUS
    wanted = {str(each["name"]) for each in datasheet["shards"]}
    for path in corpus.iterdir():
        if path.name not in wanted:
            path.unlink()
    with (
        (corpus / REMOVED_NAME).open("wb") as file,
        pyarrow.CompressedOutputStream(pyarrow.PythonFile(file), "zstd") as target,
    ):
        if (work / REMOVED).exists():
            with (work / REMOVED).open("rb") as source:
                shutil.copyfileobj(source, target, COPY_BYTES)
    write_text(corpus / DATASHEET, canonical_json(datasheet) + "\n")
    write_text(corpus / "README.md", markdown(datasheet, out.name))
    sync_tree(corpus)
    move_folder(corpus, out)
