"""The planted bugs as files: a head that says what each stands for, and a unified diff of the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("patches")
RUN = "run"
"""In the place of a test: the ordinary chain of `chain.py`, which the product's own guards must end."""
SYMPTOMS = (
    "NaN or infinity after int8",
    "a mask overflows float16",
    "float16 overflows elsewhere",
    "integer products saturate",
    "a kind of layer is never quantized",
    "a module is ignored, or quantized anyway",
    "pruning only masks",
    "a pruned model's config drifts",
    "weights left random",
    "tied weights duplicated, or falsely tied",
    "sizes ignore or overcount external data",
    "the KV cache is wrong",
    "positions ignore padding",
    "axes are baked in",
    "dropout in evaluation",
    "perplexity over the wrong tokens",
    "perplexity across vocabularies",
    "distillation across tokenizers",
    "distillation scales, directions and padding",
    "accumulation scales wrongly",
    "resuming repeats the data",
    "outliers give wrong int8 tokens",
    "float16 runs through casts",
    "latency lies",
    "exported bytes vary",
    "a tokenizer drifts",
    "the model computes something else",
    "compression damages the weights",
    "held-out text leaks",
    "a figure is of something else",
)
"""Ways in which tools of this kind are known to be wrong without a word; each needs a planted bug."""


class StalePatchError(Exception):
    """A patch no longer fits the package: it has to be planted anew, or it would prove nothing."""


@dataclass(frozen=True)
class Hunk:
    """A piece of one file, before and after."""

    path: str
    old: str
    new: str


@dataclass(frozen=True)
class Plant:
    """A bug: which symptom it stands for, what must catch it, and with which words."""

    name: str
    symptom: str
    bug: str
    caught_by: str
    """A test's id, or `run`."""
    says: str
    """A regular expression that the failure must match."""
    hunks: tuple[Hunk, ...]


def plants() -> list[Plant]:
    """Return every planted bug, in the order of the files' names."""
    return [read(path) for path in sorted(FOLDER.glob("*.patch"))]


def read(path: Path) -> Plant:
    """Read a patch: `Key: value` lines, an empty line, and a unified diff."""
    head, _, diff = path.read_text(encoding="utf-8").partition("\n\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    known = ("Symptom", "Bug", "Caught by", "Says")
    if tuple(fields) != known or fields["Symptom"] not in SYMPTOMS:
        raise StalePatchError(f"{path.name}: the head must give {', '.join(known)}, and a known symptom")
    symptom, bug, caught_by, says = fields.values()
    return Plant(path.stem, symptom, bug, caught_by, says, tuple(_hunks(path, diff)))


def plant(found: Plant, root: Path) -> None:
    """Apply a patch to a copy of the repository.

    Line numbers are not looked at, so that a change elsewhere in a file is none of its business; what a hunk
    replaces must stand there exactly once, word for word.

    Raises:
        StalePatchError: it does not.
    """
    for hunk in found.hunks:
        path = root / hunk.path
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if text.count(hunk.old) != 1:
            raise StalePatchError(
                f"{found.name}.patch: what it replaces stands {text.count(hunk.old)} times in {hunk.path}; "
                "plant the bug anew in the code as it is now"
            )
        path.write_text(text.replace(hunk.old, hunk.new), encoding="utf-8")


def _hunks(path: Path, diff: str) -> list[Hunk]:
    hunks: list[Hunk] = []
    target, old, new = "", "", ""
    for line in [*diff.splitlines(keepends=True), "@@ end"]:
        kind, rest = line[:1], line[1:]
        if line.startswith(("--- ", "+++ ", "@@")):
            if old or new:
                hunks.append(Hunk(target, old, new))
            old = new = ""
            if line.startswith("+++ b/"):
                target = line.removeprefix("+++ b/").strip()
        elif kind in " -+":
            old += rest if kind in " -" else ""
            new += rest if kind in " +" else ""
        else:
            raise StalePatchError(f"{path.name}: {line!r} is no line of a unified diff")
    if not hunks or any(not hunk.old.strip() for hunk in hunks):
        raise StalePatchError(f"{path.name}: a hunk replaces nothing")
    return hunks
