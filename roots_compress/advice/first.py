"""The recipe that `init` writes: a chain that suits a checkpoint and this machine, with comments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, Final

from roots_compress.advice.bounds import Bounds
from roots_compress.advice.candidates import Candidates, Names, candidates_for
from roots_compress.advice.facts import Facts
from roots_compress.advice.recipe import chain_recipe
from roots_compress.configs.base import descriptions
from roots_compress.configs.gates import GatesConfig
from roots_compress.configs.recipe.writing import recipe_yaml
from roots_compress.data.corpora import BUILTIN
from roots_compress.errors import Location
from roots_compress.report.text import megabytes
from roots_compress.tasks.figures.figures import counted

MINUTES: Final = 60.0
USUAL: Final = Bounds(max_loss=0.05)
"""What a first recipe asks for where nothing is asked."""
LEAST_SMALLER: Final = 0.6
"""Of the reduction in size that is expected, what a first recipe's gate asks for."""
LEAST_SIZED: Final = 4_000_000
"""Bytes of a model below which the graph itself, and not its weights, decides the size."""
WORDS: Final = {
    "int8": "8-bit weights. A timing of some seconds decides whether products are of integers too.",
    "int4": "4-bit weights; 8 bits where 4 would cost most.",
    "prune-25": "A quarter of the feed-forward channels goes; the unpruned model then teaches what is left.",
    "prune-50": "Half of the feed-forward channels goes; the unpruned model then teaches what is left.",
    "half": "A student of about half the layers learns from the model.",
}
"""What each choice does."""


def first_recipe(facts: Facts, bounds: Bounds, settings: Mapping[str, Any], *, path: Path) -> str:
    """Return the text of a recipe that suits a checkpoint, this machine and bounds.

    Args:
        facts: the checkpoint and the machine.
        bounds: the targets; none of them are usual ones.
        settings: `name`, `model` as the file is to say it, and what was given of `data`.
        path: the file to be written, named in its comments.
    """
    asked = bounds if bounds != Bounds() else USUAL
    candidates = candidates_for(facts, bounds, minutes=MINUTES)
    names, reached = candidates.first_within(asked, facts)
    gates: dict[str, float] = asked.gates(facts.task)
    if bounds == Bounds() and facts.source.stored_bytes >= LEAST_SIZED:
        gates["min_size_ratio"] = round(LEAST_SMALLER / candidates.expected[names].bytes, 1)
    recipe = chain_recipe(facts, [candidates.choices[name] for name in names], gates, settings)
    notes: dict[Location, str] = {
        ("model",): "Relative paths start from this file's folder.",
        ("stages",): "Each stage takes the checkpoint of the one before it.",
        ("gates",): "`run` leaves with exit code 3 when one of these is missed.",
    }
    notes |= {("stages", index): WORDS[name] for index, name in enumerate(names)}
    notes |= {("gates", gate): descriptions(GatesConfig)[gate] for gate in gates}
    text = recipe_yaml(
        recipe, "\n".join(_head(facts, asked, candidates, names, reached, path, recipe.name)), notes
    )
    return text if recipe.data.train or _has_text(facts) else text + _labelled(facts)


def needs_text(facts: Facts, settings: Mapping[str, Any]) -> bool:
    """Return whether the recipe cannot run before a user names text that fits the model."""
    return not (_has_text(facts) or settings.get("data", {}).get("train"))


def _has_text(facts: Facts) -> bool:
    """Whether there is a built-in corpus of what the model reads."""
    return facts.task.records in BUILTIN


def _head(
    facts: Facts, asked: Bounds, candidates: Candidates, names: Names, reached: bool, path: Path, name: str
) -> Iterator[str]:
    """Yield what stands at the top: the model, the machine, the targets, and what to do next."""
    yield f"Compress {name}. Written by roots-compress init; edit it as you like."
    yield ""
    yield from _about_model(facts)
    yield from _about_machine(facts)
    expected = candidates.expected[names]
    told = "; ".join(asked.told(facts.task))
    yield f"Targets: {told}."
    size = megabytes(expected.bytes * facts.source.stored_bytes)
    yield (
        f"Expected, as other models were measured: about {size} MB, {1 / expected.time:.1f} times as fast, "
        f"{facts.task.metric.heading} about {100 * (expected.cost - 1):.0f}% worse."
    )
    if not reached:
        yield "That misses a target. No chain is expected to reach them all; this one comes nearest."
    yield ""
    yield f"  roots-compress plan {quote(str(path))}     # what each stage will do, and what it takes"
    yield f"  roots-compress run {quote(str(path))}      # carry it out"
    yield ""
    yield "`roots-compress compress` tries several chains and keeps the one that loses least."


def _about_model(facts: Facts) -> Iterator[str]:
    source, spec = facts.source, facts.source.spec
    stored = megabytes(source.stored_bytes)
    yield (
        f"Model: family {source.model_type}, task {facts.task.name}; {source.parameters:,} parameters in "
        f"{len(spec.layers)} layers, {stored} MB as a float32 graph."
    )
    if source.kind == "gguf" and source.path.stat().st_size < 0.9 * source.stored_bytes:
        yield "  The file's weights are quantized; they are read as float32, and what they lost stays lost."
    yield f"  It holds {facts.context:,} tokens at a time; its tokenizer has {facts.tokens:,} entries."
    if facts.chats:
        yield "  It has a chat template. To judge answers in place of plain text, name conversations:"
        yield "    data: {train: [conversations.jsonl], records: instructions}"
    if facts.info.labels:
        shown = ", ".join(facts.info.labels[:8])
        yield f"  Its labels: {shown}{', ...' if len(facts.info.labels) > 8 else ''}."


def _about_machine(facts: Facts) -> Iterator[str]:
    machine = facts.machine
    memory = "" if machine.memory is None else f", {machine.memory / 1e9:.1f} GB of memory free"
    threads = counted(machine.threads, "thread")
    yield f"Machine: {machine.processor}, {threads}{memory}, {machine.disk / 1e9:.1f} GB of disk free."
    if not machine.dot_products:
        yield "  It lacks 8-bit dot products: 8-bit graphs gain less speed here than on newer processors."


def _labelled(facts: Facts) -> str:
    """Return the lines that stand for data which only the user has."""
    column = {"labels": "  label_column: label\n"}.get(facts.task.records, "")
    return (
        f"# This model reads {facts.task.records}, and the built-in corpus has none. Name your files:\n"
        + "".join(f"# {line}\n" for line in f"data:\n  train: [texts.csv]\n{column}".splitlines())
    )
