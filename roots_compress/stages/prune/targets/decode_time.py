"""Times models of given shapes on this machine, through their ONNX graphs."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch

from roots_compress.errors import InputError, Key
from roots_compress.evaluation.speed import measure_speed
from roots_compress.events import Events
from roots_compress.export.exporter import write_graph
from roots_compress.models.config import RootsConfig
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.progress import bar
from roots_compress.results import Json
from roots_compress.stages.prune.plan import AXES
from roots_compress.stages.prune.targets.meet_time import Shapes, fit_times, probes
from roots_compress.stages.prune.targets.shapes import narrowest

CONTEXT = 128
"""Tokens of context at which decoding is timed."""
DECODE_TOKENS = 16
REPEATS = 15


class DecodeTimer:
    """Times variants of a model with other shapes of layers.

    Each is a float32 graph with random weights, which takes as long as any other of that shape. All are timed
    in turns with the unpruned model, batch 1, and medians are taken. The unpruned model's times relate
    different passes to one another. Use it as a context manager: the graphs are deleted at its end.
    """

    def __init__(self, config: RootsConfig, folder: Path, *, multiple_of: int, events: Events) -> None:
        """Time the unpruned model and some smaller ones, and fit the times of their parts.

        Args:
            folder: for temporary graphs.

        Raises:
            StageError: a model cannot be exported, or the measuring process failed.
        """
        self._config, self._folder, self._events = config, folder, events
        self._multiple_of, self._threads = multiple_of, torch.get_num_threads()
        self.whole = config.spec.layers
        shutil.rmtree(folder, ignore_errors=True)
        models = probes(self.whole, multiple_of)
        found = self._time({str(index): shapes for index, shapes in enumerate(models)})
        self.whole_ms = found["0"]
        """Milliseconds a token takes in the unpruned model."""
        self.times = fit_times(models, [found[str(index)] for index in range(len(models))])

    def check_reachable(self, target_ms: float) -> None:
        """Refuse a time that no shape is predicted to reach, and one that is met already.

        Raises:
            InputError: no shape can, or the time is met already; the message names the nearest possible
                target.
        """
        if target_ms >= self.whole_ms:
            raise InputError(
                f"the model takes {self.whole_ms:.4g} ms a token already, no more than {target_ms:g}",
                where=Key("target"),
                remedy="Ask for less, or leave the stage out.",
            )
        if target_ms < self._fastest_ms:
            raise self.unreachable(target_ms)

    def unreachable(self, target_ms: float) -> InputError:
        """Return the error for an unreachable time, which names a reachable one."""
        return InputError(
            f"the target leaves no legal shape: a token takes {self.whole_ms:.4g} ms, and {target_ms:g} are "
            "asked for",
            where=Key("target"),
            remedy=f"The nearest legal one is about {self._fastest_ms:.4g} ms a token, which keeps a single "
            "layer, as narrow as can be.",
        )

    @property
    def _fastest_ms(self) -> float:
        # Which layer stays is unknown before the measurement.
        return max(self.times.total([narrowest(each, self._multiple_of)]) for each in self.whole)

    def notes(self) -> dict[str, Json]:
        """Return the measurements, for a report."""
        times = self.times
        units: dict[str, Json] = {AXES[axis].time: each for axis, each in times.units.items()}
        parts: dict[str, Json] = {"base": times.base, "layer": times.layer, **units}
        return {"before": self.whole_ms, "context": CONTEXT, "threads": self._threads, "parts": parts}

    def measure(self, shapes: Shapes) -> float:
        """Return the milliseconds that a token takes in a model of these layers."""
        found = self._time({"0": self.whole, "chosen": shapes}, "timing the choice")
        return found["chosen"] * self.whole_ms / found["0"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Delete the graphs."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _time(self, models: Mapping[str, Shapes], phase: str = "timing shapes") -> dict[str, float]:
        folders = {label: self._exported(label, shapes) for label, shapes in models.items()}
        with bar(self._events, phase) as progress:
            speeds = measure_speed(
                folders,
                contexts=[CONTEXT],
                decode_tokens=DECODE_TOKENS,
                repeats=REPEATS,
                threads=self._threads,
                progress=progress,
            )
        for label, folder in folders.items():
            if label != "0":
                shutil.rmtree(folder)
        return {label: 1000 / speed["decode"][-1].median for label, speed in speeds.items()}

    def _exported(self, label: str, shapes: Shapes) -> Path:
        folder = self._folder / label
        if not folder.exists():
            folder.mkdir(parents=True)
            write_graph(_random_model(self._config, shapes), folder)
        return folder


def _random_model(config: RootsConfig, shapes: Shapes) -> RootsForCausalLM:
    """Return a model with these layers, otherwise of this config; its weights are random, fixed by a seed."""
    config = copy.deepcopy(config)
    config.spec = config.spec.with_layers(tuple(shape for shape in shapes if shape is not None))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: RootsForCausalLM = RootsForCausalLM(config).float().eval()
    return model
