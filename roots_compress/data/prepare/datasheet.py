"""The datasheet of a corpus: the origin of its texts, the removals with reasons, and its shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from roots_compress.configs.prepare import PrepareConfig, SourceConfig, name_of
from roots_compress.data.sources.prepared import FORMAT
from roots_compress.errors import printable
from roots_compress.io.disk import amount
from roots_compress.results import Json
from roots_compress.run.keys import hash_json

BESIDE_REASONS = ("read", "bytes read", "examined", "documents", "text bytes")
"""Counts that are not removals."""


def settings_json(config: PrepareConfig) -> dict[str, Json]:
    """Return the settings that decide what the corpus holds, and no paths, which say nothing elsewhere."""
    settings: dict[str, Any] = config.model_dump(mode="json", exclude={"processes"})
    for source, given in zip(settings["sources"], config.sources, strict=True):
        del source["path"]
        source["name"] = name_of(given)
    settings["decontamination"]["held_out"] = [
        printable(path.name) for path in config.decontamination.held_out
    ]
    return settings


def source_json(
    source: SourceConfig, files: Sequence[Mapping[str, Json]], counts: Counter[str], average: float
) -> dict[str, Json]:
    """Return a source's entry.

    Args:
        files: of each its name, bytes and sha256.
        average: how often a document of it that was left stands in the corpus.
    """
    return {
        "name": name_of(source),
        "files": [dict(each) for each in files],
        "read": counts["read"],
        "bytes_read": counts["bytes read"],
        "removed": dict(removed(counts)),
        "repeats": round(average, 6),
        "documents": counts["documents"],
        "text_bytes": counts["text bytes"],
    }


def removed(counts: Mapping[str, int]) -> dict[str, int]:
    """Return how many documents were removed for each reason."""
    return {reason: number for reason, number in counts.items() if reason not in BESIDE_REASONS}


def corpus_json(
    config: PrepareConfig,
    key: str,
    sources: Sequence[dict[str, Json]],
    held_out: Mapping[str, Json],
    shards: Sequence[Mapping[str, Json]],
    counts: Counter[str],
) -> dict[str, Json]:
    """Return the datasheet: the same for the same settings and sources."""
    return {
        "format": FORMAT,
        "key": key,
        "documents": counts["documents"],
        "text_bytes": counts["text bytes"],
        "sha256": hash_json({"shards": [each["sha256"] for each in shards]}),
        "read": counts["read"],
        "removed": dict(removed(counts)),
        "sources": list(sources),
        "held_out": dict(held_out),
        "shards": [dict(each) for each in shards],
        "settings": settings_json(config),
    }


def summary(datasheet: Mapping[str, Any]) -> str:
    """Return in a sentence what a corpus has, and what was removed."""
    shards, documents = len(datasheet["shards"]), datasheet["documents"]
    text = (
        f"{documents:,} document{'s' * (documents != 1)} ({amount(datasheet['text_bytes'])} of text) "
        f"in {shards} shard{'s' * (shards != 1)}, of {datasheet['read']:,} read"
    )
    return text + (f"; removed: {reasons(datasheet['removed'])}" if datasheet["removed"] else "")


def reasons(found: Mapping[str, int]) -> str:
    """Return in words how many documents were removed for each reason."""
    return ", ".join(f"{number:,} by {reason}" for reason, number in _most_first(found))


def _most_first(found: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(found.items(), key=lambda each: (-each[1], each[0]))


def _removed(datasheet: Mapping[str, Any]) -> Iterator[str]:
    """Yield how many documents each reason removed from each source."""
    if not any(number for _, number in _most_first(datasheet["removed"])):
        yield "No document was removed."
        return
    yield from ("`removed.log.zst` names each document that was removed, and why.", "")
    names = [each["name"] for each in datasheet["sources"]]
    yield f"| reason | {' | '.join(names)} | all |"
    yield "|---" * (len(names) + 2) + "|"
    for reason, number in _most_first(datasheet["removed"]):
        cells = [f"{each['removed'].get(reason, 0):,}" for each in datasheet["sources"]]
        yield f"| {reason} | {' | '.join(cells)} | {number:,} |"


def markdown(datasheet: Mapping[str, Any], name: str) -> str:
    """Return the datasheet as a page."""
    lines = [f"# {name}", "", f"{summary(datasheet)}."]
    lines += ["", f"sha256 of the shards' hashes: `{datasheet['sha256']}`.", "", "## Sources", ""]
    lines += ["| source | read | kept | text | share | repeats |", "|---|---|---|---|---|---|"]
    total = max(datasheet["text_bytes"], 1)
    for each in datasheet["sources"]:
        share = each["text_bytes"] / total
        lines.append(
            f"| {each['name']} | {each['read']:,} | {each['documents']:,} | {amount(each['text_bytes'])} "
            f"| {share:.1%} | {each['repeats']:g} |"
        )
    lines += ["", "| file | bytes | sha256 |", "|---|---|---|"]
    for each in datasheet["sources"]:
        for file in each["files"]:
            file_name = f"{each['name']}: {file['name']}".replace("|", "\\|")
            lines.append(f"| {file_name} | {file['bytes']:,} | `{file['sha256']}` |")
    lines += ["", "## Removed", "", *_removed(datasheet)]
    lines += ["", "## Shards", "", "| file | documents | text | sha256 |", "|---|---|---|---|"]
    for each in datasheet["shards"]:
        lines.append(
            f"| {each['name']} | {each['documents']:,} | {amount(each['text_bytes'])} | `{each['sha256']}` |"
        )
    return printable("\n".join([*lines, "", "Settings are in `datasheet.json`.", ""]))
