"""A command of each verb on tiny models, under names that are no ASCII, and what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from roots_compress.checkpoints.checkpoint import save_checkpoint
from tests.cli.shells import ROOT
from tests.tiny import TEXT, tiny_checkpoint, tiny_layer

OUT = "OUT"
"""Stands for the output in the arguments of a command."""
NAME = "ünï-模型"
LITTLE = ["--set", "calibration.windows=24", "--set", "calibration.block_size=16", "--set", "own_windows=2"]
STEPS = ["--steps", "2", "--train-block-size", "16", "--batch-size", "2"]
TINY = ["--hidden-size", "32", "--layers", "1", "--vocab-size", "300"]
MEASURED = ["--windows", "2", "--block-size", "16", "--threads", "1"]


@dataclass(frozen=True)
class Command:
    """A command, and what the same command does after an interruption."""

    arguments: tuple[str, ...]
    goes_on: bool = False
    """Whether it goes on with what an interrupted one left. Others leave their output whole or not at all."""

    @property
    def writes(self) -> bool:
        """Whether it has an output of its own."""
        return OUT in self.arguments

    def to(self, out: str) -> list[str]:
        """Return the arguments, for an output."""
        return [out if each == OUT else each for each in self.arguments]


def environment(**changes: str | None) -> dict[str, str]:
    """Return this process's environment with changes; None takes a variable away."""
    found = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    return {name: value for name, value in found.items() if value is not None}


def roots(*arguments: str | Path) -> None:
    """Carry out a command that is known to end well."""
    words = [sys.executable, "-m", "roots_compress", *map(str, arguments)]
    subprocess.run(words, check=True, capture_output=True, env=environment())


def prepare(folder: Path) -> dict[str, Command]:
    """Make models, text, a graph and two runs in a folder; return a command of each verb."""
    folder = folder / NAME
    model, chat, text, graph = (folder / name for name in ("model", "chat", "text", "graph"))
    wide = tiny_layer(head_dim=16, intermediate_size=256)
    save_checkpoint(tiny_checkpoint(hidden_size=64, layers=[wide, wide]), model)
    chatting = tiny_checkpoint()
    chatting.tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    save_checkpoint(chatting, chat)
    text.mkdir()
    for number in range(12):
        (text / f"{number}-é.txt").write_text(f"Größe {number}, 模型. " + TEXT * (number + 1), "utf-8")
    instructions = folder / "said.jsonl"
    said = [{"prompt": f"say {n}", "response": f"Größe {n}."} for n in range(100)]
    instructions.write_text("\n".join(map(json.dumps, said)))
    data = ["--data", str(text), *MEASURED]
    quantize = ["quantize", str(model), *data, "--weights-only", *LITTLE]
    roots("export", model, "--out", graph)
    for number in range(2):
        roots(*quantize, "--seed", str(number), "--run", folder / f"run{number}")
    first, second = str(folder / "run0"), str(folder / "run1")
    recipe = str(folder / "run0" / "recipe.yaml")
    longer = ["--block-size", "64", "--train-block-size", "64"]
    answers = ["--data", str(instructions), "--windows", "2", "--threads", "1", "--steps", "2", *longer]
    bench = ["bench", str(graph), "--context", "8", "--repeats", "1", "--decode-tokens", "1"]
    made = {
        "compress": ["compress", str(model), "--max-mb", "0.3", *data, "--run", OUT],
        "run": ["run", recipe, "--run", OUT],
        "train": ["train", *data, *STEPS, *TINY, "--run", OUT],
        "tune": ["tune", str(chat), *answers, "--run", OUT],
        "distill": ["distill", "--teacher", str(model), *data, *STEPS, "--run", OUT],
        "prune": ["prune", str(model), *data, *LITTLE, "--set", "multiple_of=8", "--run", OUT],
        "sparsify": ["sparsify", str(model), "--blocks", "2", "--size", "4", *data, "--run", OUT],
        "quantize": [*quantize, "--run", OUT],
        "data": ["data", "prepare", str(text), "--out", OUT, "--min-words", "2"],
    }
    others = {
        "init": ["init", str(model), "-o", OUT, "--data", str(text)],
        "import": ["import", str(model), "--out", OUT],
        "export": ["export", str(model), "--out", OUT],
        "plan": ["plan", recipe, "--no-probe"],
        "validate": ["validate", recipe],
        "schema": ["schema"],
        "eval": ["eval", str(model), *data],
        "bench": bench,
        "generate": ["generate", str(graph), "-p", "Größe 模", "--max-new-tokens", "4"],
        "report": ["report", first, "--format", "html", "--output", OUT],
        "compare": ["compare", first, second],
        "verify": ["verify", first],
        "doctor": ["doctor"],
    }
    return {
        **{verb: Command(tuple(words), goes_on=True) for verb, words in made.items()},
        **{verb: Command(tuple(words)) for verb, words in others.items()},
    }
