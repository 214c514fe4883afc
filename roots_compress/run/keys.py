"""Stage keys: the hash of everything that a stage's result depends on, and the reason for a change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from roots_compress.results import Json
from roots_compress.system.machine import code_sha256, library_versions, own_instruction_set

PARENT = "parent"
"""The ingredient with the key of the stage before; it links a chain of stages."""
CHOSEN = "chosen"
"""The ingredient with a stage's choices by timing, known only while the stage runs."""


@dataclass(frozen=True)
class StageKey:
    """Everything that a stage's result depends on, in clear text and as a hash that decides its reuse.

    Timings vary, so a stage that chooses by them does not know its complete key before it begins. A run looks
    for it by `asked`, the hash of the rest, and reuses it together with its choice.
    """

    ingredients: dict[str, Json]
    sha256: str

    @property
    def parent(self) -> str | None:
        """The `asked` hash of the stage before; None for the first."""
        parent = self.ingredients[PARENT]
        assert parent is None or isinstance(parent, str)
        return parent

    @property
    def asked(self) -> str:
        """The hash of everything except choices by timing."""
        return hash_json(asked_of(self.ingredients)) if CHOSEN in self.ingredients else self.sha256

    @property
    def chosen(self) -> dict[str, Json] | None:
        """The choices by timing; None if there were none."""
        chosen = self.ingredients.get(CHOSEN)
        return chosen if isinstance(chosen, dict) else None

    def with_choice(self, chosen: Mapping[str, Json]) -> StageKey:
        """Return the key with the stage's choices."""
        ingredients = {**self.ingredients, CHOSEN: dict(chosen)}
        return StageKey(ingredients, hash_json(ingredients))


def asked_of(ingredients: Mapping[str, Json]) -> dict[str, Json]:
    """Return the ingredients of a key that are known before the stage begins."""
    return {name: value for name, value in ingredients.items() if name != CHOSEN}


def canonical_json(value: Json | Mapping[str, Json]) -> str:
    """Return the canonical text of a JSON value: sorted keys, two-space indent, no NaN.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False)


def stage_key(
    stage: Mapping[str, Json],
    *,
    parent: str | None,
    threads: int,
    device: str,
    seed: int,
    **others: Json,
) -> StageKey:
    """Return the key of a stage about to run on this machine.

    Args:
        stage: its settings, every default filled in. The label `name` is left out: it changes no result.
        parent: the `asked` hash of the stage whose checkpoint it takes; None for the first stage.
        threads: its number of threads, which changes the order of sums.
        others: further ingredients by name, such as the hashes of texts and models, or the evaluation's
            settings if its figures are committed with the stage.
    """
    ingredients: dict[str, Json] = {
        "stage": {key: value for key, value in stage.items() if key != "name"},
        PARENT: parent,
        "threads": threads,
        "device": device,
        "seed": seed,
        "instruction_set": own_instruction_set(),
        "versions": dict(library_versions()),
        "code": code_sha256(),
        **others,
    }
    return StageKey(ingredients, hash_json(ingredients))


def hash_json(value: Mapping[str, Json]) -> str:
    """Return the sha256 of a JSON object's canonical text."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def with_sha256(content: Mapping[str, Json]) -> dict[str, Json]:
    """Return a JSON object with a hash, by which `checked_content` detects a change."""
    return {"content": dict(content), "sha256": hash_json(content)}


def checked_content(text: str | bytes) -> dict[str, Json]:
    """Return the content of a JSON text from `with_sha256`.

    Raises:
        ValueError: it is not such a text, or it was changed.
    """
    try:
        document = json.loads(text)
        content: dict[str, Json] = document["content"]
        intact = document["sha256"] == hash_json(content)
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError("holds no hash of its content") from error
    if not intact:
        raise ValueError("changed since it was written")
    return content


def explain_change(old: Mapping[str, Json], new: Mapping[str, Json]) -> list[str]:
    """Return one line for each ingredient that differs, such as `stage.ratio: 0.25 -> 0.3`."""
    before, after = dict(_flatten(old)), dict(_flatten(new))
    names = [*before, *(name for name in after if name not in before)]
    return [
        f"{name}: {_shown(before.get(name))} -> {_shown(after.get(name))}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _flatten(value: Mapping[str, Json], prefix: str = "") -> Iterator[tuple[str, Json]]:
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _shown(value: Json) -> str:
    """Hashes are shortened for people."""
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}..." if len(text) == 64 and not set(text) - set("0123456789abcdef") else text
