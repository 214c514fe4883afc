"""An adapter and its base as one checkpoint: the resulting model, and the place of each tensor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from roots_compress.checkpoints.adapters.changes import (
    Adapter,
    LowRank,
    Place,
    changes_of,
)
from roots_compress.checkpoints.adapters.found import Found, without_wrapper
from roots_compress.checkpoints.adapters.settings import (
    ADAPTER,
    SETTINGS,
    AdapterSettings,
    read_adapter_settings,
)
from roots_compress.checkpoints.sentence_transformers.modules import with_pooling
from roots_compress.checkpoints.sentence_transformers.settings import MODULES
from roots_compress.checkpoints.source import SourceInfo
from roots_compress.checkpoints.text_part import parts_of, text_names
from roots_compress.checkpoints.weight_files import numbers_in, whole_shapes
from roots_compress.errors import InputError
from roots_compress.families.base import Family, Rule, bare_name
from roots_compress.families.registry import FAMILIES
from roots_compress.families.switches import Switches
from roots_compress.families.text_encoder import LABELS, label_class, read_config, tensor_rules
from roots_compress.io.safetensors_header import TensorEntry, read_header, same_bytes
from roots_compress.models.ops.heads import LabelHead
from roots_compress.models.spec import ModelSpec

EMBEDDING, HEAD, LABEL_MATRIX = "model.embed_tokens.weight", "lm_head.weight", "classifier.weight"
"""ROOTS's names of tensors whose rows the configuration counts, and of the head that may be tied."""
TIED = "tie_word_embeddings"
CLASS_END = re.compile(r"(?:For[A-Z]\w*|LMHeadModel|Model)$")


def with_adapter(base: SourceInfo, folder: Path) -> SourceInfo:
    """Return the facts about the model of a base and an adapter.

    Args:
        base: the facts from its own folder.
        folder: the adapter's.

    Raises:
        InputError: the adapter is of a kind that is not read, its base is no model of a family, or a tensor
            has no place.
    """
    settings = read_adapter_settings(folder / SETTINGS)
    if base.kind != "transformers":
        raise InputError(
            f"is of an adapter whose base {base.path} is a ROOTS checkpoint",
            where=folder / SETTINGS,
            remedy="Name the Hugging Face model that the adapter was trained on as its base.",
        )
    return _Joined(base, folder, settings).info()


class _Joined:
    """The steps of joining an adapter and its base."""

    def __init__(self, base: SourceInfo, folder: Path, settings: AdapterSettings) -> None:
        self.base, self.folder, self.settings = base, folder, settings
        self.family: Family = FAMILIES[base.model_type]
        self.entries = read_header(folder / ADAPTER)
        self.found = Found(self.entries, self._names(), self._bare)
        self.tensors = dict(base.tensors)
        self.stored_as = dict(base.stored_as)
        self.by_bare = {self._bare(name): name for name in whole_shapes(base.tensors)}

    def _bare(self, name: str) -> str:
        inner = text_names([name]) if self.base.left_out else {}
        return bare_name(inner.get(name, name), self.family.prefix)

    def _names(self) -> dict[str, str]:
        """Return the names that the tensors have in the model; those of left out parts have none."""
        plain = {stored: without_wrapper(stored) for stored in self.entries}
        left_out = {*self.base.left_out}
        inner = text_names(plain.values()) if left_out else {}
        return {
            stored: name
            for stored, name in plain.items()
            if name in inner or not {*parts_of([name])} & left_out
        }

    def info(self) -> SourceInfo:
        """Return the facts about the joined model."""
        config = self._with_class(dict(self.base.config))
        spec = self._spec(config)
        if (counted := self._with_counts(config, spec)) != config:
            config, spec = counted, self._spec(counted)
        self._take_whole(spec)
        changes = dict(changes_of(self.found, self._places(spec), self.settings))
        if spec.tied and spec.head.predicts_tokens and self._unties(spec, changes):
            config = {**config, TIED: False}
            spec = self._spec(config, untied=True)
        self._refuse_shared(changes)
        return replace(
            self.base,
            parameters=numbers_in(self.tensors),
            config=config,
            spec=spec,
            tensors=self.tensors,
            stored_as=self.stored_as,
            unread=tuple(name for name in self.base.unread if name not in (SETTINGS, ADAPTER)),
            adapter=Adapter(self.folder, self.entries, changes),
        )

    def _spec(self, config: Mapping[str, Any], *, untied: bool = False) -> ModelSpec:
        modules = self.folder if (self.folder / MODULES).exists() else self.base.path
        try:
            spec = read_config(self.family, Switches(config, self.base.path / "config.json"))
            return with_pooling(spec, modules)
        except InputError as error:
            if not untied:
                raise
            raise self._untiable(f" ({error.message})") from None

    def _untiable(self, why: str) -> InputError:
        return InputError(
            f"changes the embedding apart from the head that is tied to it, which {self.family.model_type} "
            f"models cannot have{why}",
            where=self.folder / ADAPTER,
            remedy="Train the adapter with ensure_weight_tying, or leave embedding and head as they are.",
        )

    def _with_class(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the configuration with the class of the adapted model."""
        named = self.settings.named_class
        if named is None and self.settings.ending is not None:
            listed = config.get("architectures") or [self.family.architecture]
            own = str(listed[0])
            if own.endswith(self.settings.ending) or (
                self.family.writes_text and self.settings.ending != LABELS
            ):
                return config  # A decoder's vectors are its last states, with or without a head.
            stem = CLASS_END.sub("", own)
            named = label_class(self.family) if self.family.writes_text else stem + self.settings.ending
        return config if named is None else {**config, "architectures": [named]}

    def _with_counts(self, config: dict[str, Any], spec: ModelSpec) -> dict[str, Any]:
        """Return the configuration with the numbers of rows of replaced tables."""
        labels = self._replaced(spec, LABEL_MATRIX)
        if labels is not None and isinstance(spec.head, LabelHead) and labels.shape[0] != spec.head.labels:
            names = {str(number): f"LABEL_{number}" for number in range(labels.shape[0])}
            config = {key: value for key, value in config.items() if key not in ("num_labels", "label2id")}
            config["id2label"] = names
        table = self._replaced(spec, EMBEDDING)
        if table is not None and table.shape[0] != spec.embeddings.vocabulary:
            config = {**config, "vocab_size": table.shape[0]}
        return config

    def _source(self, spec: ModelSpec, target: str) -> str | None:
        """Return the bare name of the source of a ROOTS tensor."""
        rules = tensor_rules(self.family, spec)
        return next((rule.source for rule in rules if rule.targets == (target,)), None)

    def _replaced(self, spec: ModelSpec, target: str) -> TensorEntry | None:
        stored = self.found.whole.get(self._source(spec, target) or "")
        entry = None if stored is None else self.entries[stored]
        return entry if entry is not None and entry.shape else None

    def _take_whole(self, spec: ModelSpec) -> None:
        """Put tensors that replace others into their places, and leave out those of another head."""
        places = {rule.source for rule in tensor_rules(self.family, spec)}
        before = {rule.source for rule in tensor_rules(self.family, self.base.spec)}
        if self.base.spec.head.predicts_tokens and not spec.head.predicts_tokens:
            places -= {self._source(self.base.spec, HEAD) or ""}
        for bare in (before - places) & self.by_bare.keys():
            del self.tensors[self.by_bare.pop(bare)]
        for bare, stored in self.found.whole.items():
            if bare not in places and bare not in self.by_bare:
                self.found.refuse(stored, "has no place in the base")
            name = self.by_bare.setdefault(bare, bare)
            self.tensors[name], self.stored_as[name] = self.entries[stored], stored

    def _places(self, spec: ModelSpec) -> dict[str, Place]:
        rules: dict[str, Rule] = {rule.source: rule for rule in tensor_rules(self.family, spec)}
        shapes = whole_shapes(self.tensors)
        head, embedding = (self._source(spec, target) for target in (HEAD, EMBEDDING))
        if head and head not in self.by_bare and embedding in self.by_bare and spec.tied:
            self.by_bare[head] = head  # The tied head: its own tensor from here on, if it is changed.
            shapes[head] = shapes[self.by_bare[embedding]]
        return {
            bare: Place(name, shapes[name], bare in rules and _is_turned(rules[bare]))
            for bare, name in self.by_bare.items()
        }

    def _unties(self, spec: ModelSpec, changes: dict[str, Any]) -> bool:
        """Return whether the head is no longer tied to the table, and give it its own tensor if so."""
        sources = [self._source(spec, target) for target in (EMBEDDING, HEAD)]
        table, head = (self.by_bare.get(source or "", "") for source in sources)
        replaced = [self._replaced(spec, target) for target in (EMBEDDING, HEAD)]
        low = [isinstance(changes.get(table), LowRank), head in changes]
        if all(replaced):
            apart = not same_bytes(*(each for each in replaced if each is not None))
        elif replaced[0] is not None:
            apart = replaced[0].shape == self._table_before()
        else:
            apart = replaced[1] is not None
        if not head or self.settings.keeps_tie or not (apart or any(low)):
            changes.pop(head, None)  # It follows the table, whatever the base's file contains.
            if table in changes or (replaced[0] is not None and replaced[1] is None):
                self.tensors.pop(head, None)
            return False
        if not self.family.writes_text:
            raise self._untiable("")
        if head not in self.tensors:
            self.tensors[head] = self.base.tensors[table]
            self.stored_as[head] = self.base.stored_as.get(table, table)
        return True

    def _table_before(self) -> tuple[int, ...]:
        name = self.by_bare.get(self._source(self.base.spec, EMBEDDING) or "", "")
        return self.base.tensors[name].shape

    def _refuse_shared(self, changes: Mapping[str, Any]) -> None:
        """Refuse a change of a tensor that a base has under several names."""
        shared = {*self.family.copies, *self.family.copies.values()}
        for bare, stored in self.found.whole.items():
            if bare in shared:
                self.found.refuse(stored, "changes one that the model shares between several parts")
        for name, change in changes.items():
            if self._bare(name) in shared and isinstance(change, LowRank):
                self.found.refuse(change.down, "changes one that the model shares between several parts")


def _is_turned(rule: Rule) -> bool:
    """Whether a tensor has its inputs first."""
    return bool(getattr(rule.transform, "transposed", False))
