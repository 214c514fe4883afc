"""From a checkpoint to engines ready to be measured; what cannot be prepared is named with its reason."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.checkpoints import Tokens, artifact_bytes, hugging_face_directory, opened_file
from benchmarks.peers.checkpoints import source_key as key_of
from benchmarks.peers.engines import OURS, Build, Engine, interpreter
from benchmarks.peers.environments import ENVIRONMENTS, PeerError, prepare_environment
from benchmarks.peers.measuring import Launch, judge, needed_options
from roots_compress.system.machine import code_sha256, own_instruction_set

Say = Callable[[str], None]


@dataclass
class Ready:
    """What is prepared so far."""

    pythons: dict[str, Path] = field(default_factory=dict)
    artifacts: dict[str, Path] = field(default_factory=dict)
    """Folder of each engine."""
    scored: dict[str, Path] = field(default_factory=dict)
    """What each engine's worker opens for scoring."""
    refused: dict[str, str] = field(default_factory=dict)
    """Engines that are left out, and why."""


@dataclass(frozen=True)
class Places:
    """Where what is prepared is kept, to be used again."""

    environments: Path
    work: Path

    def log(self, name: str) -> Path:
        """Return the log of a step."""
        return self.work / "logs" / f"{name}.log"


def prepare(engines: Sequence[Engine], source: Path, places: Places, say: Say) -> Ready:
    """Make environments and artifacts; an artifact that stands there is used again.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    ready = Ready()
    broken: dict[str, str] = {}
    for name in dict.fromkeys(engine.environment for engine in engines if engine.environment != OURS):
        say(f"environment {name}")
        try:
            ready.pythons[name] = prepare_environment(
                ENVIRONMENTS[name], places.environments, places.log(f"environment-{name}")
            )
        except PeerError as error:
            broken[name] = str(error)
    folder = places.work / "checkpoints" / key_of(source)
    folder.mkdir(parents=True, exist_ok=True)
    if any(engine.environment != OURS for engine in engines):
        say("checkpoint for the peers")
        try:
            written = hugging_face_directory(source, folder / "hugging-face")
        except PeerError as error:
            broken |= {name: str(error) for name in ENVIRONMENTS}
    for engine in engines:
        if engine.environment in broken:
            ready.refused[engine.name] = broken[engine.environment]
            continue
        ours = engine.environment == OURS
        try:
            place = _Place(engine, interpreter(engine, ready.pythons), source if ours else written, folder)
            artifact = _built(place, engine.artifact, engine.build, places, say)
            ready.artifacts[engine.name] = artifact
            ready.scored[engine.name] = opened_file(engine, artifact)
            if engine.scored is not None:
                name, build = engine.scored
                whole = _built(place, name, build, places, say)
                ready.scored[engine.name] = opened_file(engine, whole)
        except PeerError as error:
            ready.refused[engine.name] = str(error)
    return ready


@dataclass(frozen=True)
class _Place:
    """What a build starts from."""

    engine: Engine
    python: Path
    source: Path
    folder: Path


def _built(place: _Place, name: str, build: Build, places: Places, say: Say) -> Path:
    """Return an artifact's folder, which appears whole or not at all."""
    if Path(name).is_absolute():
        return Path(name)
    target = place.folder / (f"{name}-{code_sha256()[:12]}" if place.engine.environment == OURS else name)
    if target.exists():
        return target
    say(f"{place.engine.name}: {name}")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    build(place.python, place.source, partial, places.log(name))
    partial.rename(target)
    return target


def launch_of(engine: Engine, ready: Ready, places: Places, *, threads: int, room: int) -> Launch:
    """Return how the engine's worker is started for timings."""
    return Launch(
        engine,
        interpreter(engine, ready.pythons),
        opened_file(engine, ready.artifacts[engine.name]),
        threads,
        room,
        places.log(f"worker-{engine.worker}-{engine.artifact.replace('/', '_')}"),
    )


def judged(
    engine: Engine, launch: Launch, ready: Ready, tokens: Tokens, places: Places, *, context: int, decode: int
) -> Mapping[str, Any]:
    """Return `measuring.judge`'s figures and the engine's size, from an earlier run where nothing differs.

    Raises:
        PeerError: the engine cannot be run.
    """
    artifact = ready.artifacts[engine.name]
    files = sorted(path for path in {launch.path, ready.scored[engine.name]} if path.is_file())
    marks = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    asked = [tokens.windows, tokens.greedy_prompt, tokens.timed[: context + decode], launch.threads]
    asked += [dict(engine.options), needed_options(own_instruction_set())]
    installed = ENVIRONMENTS[engine.environment].requirements if engine.environment != OURS else code_sha256()
    digest = hashlib.sha256(
        json.dumps([engine.name, str(artifact), marks, asked, installed]).encode()
    ).hexdigest()
    kept = places.work / "judged" / f"{digest}.json"
    if kept.exists():
        stored: Mapping[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return stored
    scoring = Launch(
        engine, launch.python, ready.scored[engine.name], launch.threads, launch.room, launch.log
    )
    figures = judge(launch, scoring, tokens, context=context, decode=decode)
    figures["bytes"] = artifact_bytes(engine, artifact)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(figures), encoding="utf-8")
    return figures
