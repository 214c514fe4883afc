"""What a planted bug is: where it goes, what it changes there, and what must catch it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from tests.symbols import find_symbol, replace

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


@dataclass(frozen=True)
class Change:
    """Code that is replaced inside a symbol of the package."""

    where: str
    """For `find_symbol`."""
    old: str
    """For `replace`, like `new`."""
    new: str

    @property
    def path(self) -> str:
        """The file that is changed, from the repository's root."""
        return find_symbol(self.where).path

    def make(self, root: Path) -> None:
        """Change a copy of the repository.

        Raises:
            StaleSymbolError: the symbol or the code is not there exactly once: plant the bug anew.
        """
        path = root / self.path
        module = ast.parse(path.read_text(encoding="utf-8"))
        replace(find_symbol(self.where).within(module), self.old, self.new)
        path.write_text(ast.unparse(ast.fix_missing_locations(module)) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class FailingTest:
    """A test that must fail."""

    name: str
    """For `find_symbol`, perhaps with the id of one case: `test_logits[qwen2]`."""
    error: str = "AssertionError"
    """The class of the error that must end it: `Failed` where `pytest.raises` saw none."""

    @property
    def id(self) -> str:
        """The test as pytest names it."""
        name, bracket, case = self.name.partition("[")
        symbol = find_symbol(name, "tests")
        return f"{symbol.path}::{symbol.qualname.replace('.', '::')}".removesuffix("::") + bracket + case


@dataclass(frozen=True)
class Guard:
    """A function of the package, whose error must end the ordinary chain of `chain.py`."""

    name: str
    """For `find_symbol`. The function raises the error, or calls what raises it."""
    error: str = "StageError"


@dataclass(frozen=True)
class Bug:
    """A realistic bug that no error message points to."""

    name: str
    symptom: str
    bug: str
    """What the code does wrong, in a sentence."""
    caught_by: FailingTest | Guard
    changes: tuple[Change, ...]

    def plant(self, root: Path) -> None:
        """Put the bug into a copy of the repository."""
        for change in self.changes:
            change.make(root)
