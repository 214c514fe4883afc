"""Examples of the verbs, as their help shows them."""

from __future__ import annotations

from collections.abc import Sequence

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": ("roots-compress run recipe.yaml", "roots-compress run recipe.yaml --model ckpt --json"),
    "plan": ("roots-compress plan recipe.yaml",),
    "validate": ("roots-compress validate recipe.yaml",),
    "schema": ("roots-compress schema > recipe.schema.json",),
    "import": ("roots-compress import model.gguf --out ckpt",),
    "export": ("roots-compress export ckpt --out graph",),
    "bench": ("roots-compress bench runs/current/00-baseline runs/current/02-quantize --context 512",),
    "generate": ("roots-compress generate runs/current/02-quantize --prompt 'Once upon a time'",),
    "report": ("roots-compress report", "roots-compress report runs/first --format markdown"),
    "compare": ("roots-compress compare runs/first runs/second",),
    "verify": ("roots-compress verify runs/current",),
    "doctor": ("roots-compress doctor",),
}
"""By verb; each stage's is in its settings."""


def epilog(examples: Sequence[str]) -> str:
    """Return the end of a verb's help."""
    heading = "Example:" if len(examples) == 1 else "Examples:"
    return "\n\n".join((heading, *examples))
