"""Damaged run folders: figures, recipes, markers and manifests that were edited or cut short."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bad_inputs.cases import Bench, Generator, Request
from tests.bad_inputs.checkpoints import JSON_TEXTS

RUN = "runs/current"
WRONG: tuple[Any, ...] = (None, "x", -1, 0, [], {}, True, 10**400, 1e305, [3], {"a": 1}, "\x1b[31m", -1.5)


def _places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return where each value of a document stands."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in [(*path, key), *_places(item, (*path, key))]]


def _take(document: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        document = document[part]
    return document


DIVISORS = ("bytes", "perplexity", "median", "low", "high", "decode_ms", "perplexity_ratio")
"""Figures that others are divided by."""
FREE = {"machine", "notes", "gates", "task"}
"""What may hold anything, or nothing; without `task` they are a causal LM's."""


def figures(bench: Bench) -> Request:
    """Change one figure of metrics.json to what it cannot be, or take it away."""
    run = bench.take("run", RUN)
    path = run / "metrics.json"
    document = json.loads(path.read_text())
    place = bench.random.choice([place for place in _places(document) if not FREE & set(place)])
    holder, key = _take(document, place[:-1]), place[-1]
    old = holder[key]
    if bench.random.random() < 0.3 and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = bench.random.choice([value for value in WRONG if not _fits(old, value, str(key))])
    path.write_text(json.dumps(document))
    command = bench.random.choice(
        (("report", RUN), ("report",), ("compare", RUN, RUN), ("report", "--format", "html"),
         ("report", "--format", "markdown"), ("report", "--format", "json"))
    )  # fmt: skip
    return Request(command, "metrics.json")


def _fits(old: Any, value: Any, key: str) -> bool:
    """Whether a value is of the kind that stands there, and so no fault that a reader could see."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and value not in (10**400, 1e305)
    if isinstance(old, float):
        return number and (value > 0 or key not in DIVISORS)
    if type(old) is int:
        return number and isinstance(value, int) and (value > 0 or key not in DIVISORS)
    if isinstance(old, str):
        return isinstance(value, str) and key != "kind"
    return type(old) is type(value) and (not isinstance(old, list) or value == [])


def figures_text(bench: Bench) -> Request:
    """Put other text, a part of it or no file where the figures are."""
    run = bench.take("run", RUN)
    path = run / "metrics.json"
    document = _damaged(bench, path)
    if document is not None:
        document["schema"] = bench.random.choice((0, 2, 99, "1", None, [1]))
        path.write_text(json.dumps(document))
    verb = bench.random.choice((("report", RUN), ("report",), ("compare", RUN, RUN)))
    return Request(verb, RUN)


def _damaged(bench: Bench, path: Path) -> dict[str, Any] | None:
    """Put other text, a part of it or no file at a path; or return its document, to be changed."""
    text = path.read_bytes()
    match bench.random.randrange(4):
        case 0:
            path.write_bytes(text[: bench.random.randrange(len(text.rstrip()))])
        case 1:
            _other_text(bench, path)
        case 2:
            path.unlink()
            _no_file(bench, path)
        case _:
            document: dict[str, Any] = json.loads(text)
            return document
    return None


def _other_text(bench: Bench, path: Path, texts: Sequence[str | bytes] = JSON_TEXTS) -> None:
    """Put text at a path that JSON may not be, or not there."""
    value = bench.random.choice(texts)
    path.write_bytes(value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value)


def _no_file(bench: Bench, path: Path) -> None:
    """Put something at a path that is no file, and must not be waited for."""
    match bench.random.randrange(4):
        case 0:
            os.mkfifo(path)
        case 1:
            path.symlink_to(path)
        case 2:
            path.symlink_to("/dev/zero")
        case _:
            path.mkdir()


def recipe(bench: Bench) -> Request:
    """Damage the recipe that a verb would add a stage to."""
    run = bench.take("run", RUN)
    bench.take("prose")
    bench.take("ckpt")
    path = run / "resolved.json"
    document = _damaged(bench, path)
    if document is not None:
        key = bench.random.choice(
            [key for key in document if key not in ("model", "gates", "search", "stages")]
        )
        document[key] = bench.random.choice((-3, "../x", [[]], {"unknown": 1}, False))
        path.write_text(json.dumps(document))
    return Request((bench.random.choice(("quantize", "prune", "distill")),), "resolved.json")


def marker(bench: Bench) -> Request:
    """Damage the marker that makes a folder ours."""
    run = bench.take("run", RUN)
    bench.take("prose")
    bench.take("ckpt")
    path = run / ".roots-run.json"
    path.unlink()
    match bench.random.randrange(3):
        case 0:
            _no_file(bench, path)
        case 1:
            _other_text(bench, path, [text for text in JSON_TEXTS if text != ""])
        case _:
            path.write_text(json.dumps({"schema": bench.random.choice((0, 2, "1", None, [1]))}))
    fresh = ("--fresh",) if bench.random.random() < 0.5 else ()
    return Request(("quantize", "ckpt", *fresh), RUN)


def manifest(bench: Bench) -> Request:
    """Damage the manifest of the only stage, and go on from it."""
    run = bench.take("run", RUN)
    stage = run / "00-baseline"
    path = stage / "manifest.json"
    text = path.read_bytes()
    match bench.random.randrange(5):
        case 0:
            path.write_bytes(text[: bench.random.randrange(len(text.rstrip()))])
        case 1:
            _other_text(bench, path)
        case 2:
            path.unlink()
            _no_file(bench, path)
        case 3:
            document = json.loads(text)
            place = bench.random.choice(_places(document))
            _take(document, place[:-1])[place[-1]] = bench.random.choice(
                (None, "../../x", [], {}, 10**400, "\x1b[2J")
            )
            path.write_text(json.dumps(document, sort_keys=True))
        case _:
            (stage / "extra").symlink_to("/etc/passwd")
    return Request(("export", "--out", "out"), RUN)


GENERATORS: tuple[Generator, ...] = tuple(
    Generator(f"run: {name}", classes, make, count)
    for name, classes, make, count in (
        ("figures", (26, 100), figures, 200),
        ("figures' text", (26, 30, 52, 100), figures_text, 80),
        ("recipe", (26, 30, 100), recipe, 60),
        ("marker", (91, 92, 100), marker, 30),
        ("manifest", (30, 52, 100), manifest, 60),
    )
)
