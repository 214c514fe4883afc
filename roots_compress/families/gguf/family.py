"""What a GGUF architecture is: what makes a specification of its keys, and how its files hold tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from roots_compress.families.base import Rule
from roots_compress.families.gguf.bert import BertLayout, BertReader
from roots_compress.families.gguf.configured import Configured
from roots_compress.families.gguf.names import Layout
from roots_compress.families.gguf.t5 import T5EncoderLayout, T5EncoderReader
from roots_compress.models.spec import ModelSpec


@dataclass(frozen=True)
class GgufFamily:
    """How one GGUF architecture maps to ROOTS.

    Attributes:
        unread: tensors that some files carry and nothing reads: `{}` is a layer's number.
    """

    architecture: str
    reader: Configured | BertReader | T5EncoderReader
    layout: Layout | BertLayout | T5EncoderLayout = field(default_factory=Layout)
    unread: tuple[str, ...] = ()

    @property
    def ignored(self) -> tuple[str, ...]:
        """Tensors that have no place in a model."""
        return (*self.reader.factors, *self.unread)

    def rules(self, spec: ModelSpec) -> Mapping[str, Rule]:
        """Return the place of each tensor that a model of this specification may have, by its name."""
        found = {rule.source: rule for rule in self.layout.rules(spec)}
        for rule in self.layout.others(spec):
            found.setdefault(rule.source, rule)
        return found
