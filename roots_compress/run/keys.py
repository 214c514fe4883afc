"""Stage keys: the hash of everything that a stage's result depends on, and why one changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from roots_compress.results import Json
from roots_compress.system.machine import code_sha256, library_versions, own_instruction_set

PARENT = "parent"
"""The ingredient that holds the key of the stage before; a chain of stages is held together by it."""
CHOSEN = "chosen"
"""The ingredient that holds what a stage chose by timing. It is known only once the stage is under way."""


@dataclass(frozen=True)
class StageKey:
    """What a stage's result depends on, in clear and as a hash. Equal hashes: the result may be reused.

    Timings differ from one time to the next, so a stage that chooses by them cannot know its whole key before
    it begins. It is looked for by `asked`, the hash of the rest, and what is found under that hash is reused
    together with its choice.
    """

    ingredients: dict[str, Json]
    sha256: str

    @property
    def parent(self) -> str | None:
        """What was asked of the stage this one starts from, as a hash; None for the first."""
        parent = self.ingredients[PARENT]
        assert parent is None or isinstance(parent, str)
        return parent

    @property
    def asked(self) -> str:
        """The hash of all but what was chosen by timing."""
        return hash_json(asked_of(self.ingredients)) if CHOSEN in self.ingredients else self.sha256

    @property
    def chosen(self) -> dict[str, Json] | None:
        """What was chosen by timing; None where nothing was."""
        chosen = self.ingredients.get(CHOSEN)
        return chosen if isinstance(chosen, dict) else None

    def with_choice(self, chosen: Mapping[str, Json]) -> StageKey:
        """Return the key once it is known what the stage chose."""
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
        parent: what was asked of the stage whose checkpoint it takes, as a hash; None for the first stage.
        threads: threads it computes with; sums are added in another order with another number.
        others: further ingredients by name, such as the hashes of texts and models read, or the evaluation's
            settings where its figures are committed with the stage.
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
    """Return a JSON object with the hash by which `checked_content` sees that it was changed."""
    return {"content": dict(content), "sha256": hash_json(content)}


def checked_content(text: str | bytes) -> dict[str, Json]:
    """Return the content of what `with_sha256` made, written as JSON.

    Raises:
        ValueError: it is no such text, or was changed since.
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
    """Hashes are cut to what a person compares."""
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}..." if len(text) == 64 and not set(text) - set("0123456789abcdef") else text
