"""The rows of a run: a recipe's steps, each with the key of everything that its result depends on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from roots_compress.checkpoints.fingerprint import source_sha256
from roots_compress.configs.distill import STUDENT_PRESETS
from roots_compress.configs.recipe.schema import BASELINE_NAME, Recipe, StageConfig
from roots_compress.configs.recipe.walk import losses_of, training_of
from roots_compress.configs.stage import RESULT_FREE
from roots_compress.errors import Location
from roots_compress.pipeline.preflight import Setting
from roots_compress.results import Json, StageKind
from roots_compress.run.keys import StageKey, stage_key
from roots_compress.run.stages import CommittedStage
from roots_compress.stages.registry import stage_of

TIMING_SETTINGS = {"contexts", "decode_tokens", "repeats"}
"""Evaluation settings that no committed figure depends on: speeds are measured anew each time."""
ONCE_KEYED = {"checkpoint_every", "student", "teacher"}
"""Settings of stages that are in keys of earlier versions only."""


@dataclass(frozen=True)
class Step:
    """One planned row of a run: its kind, its label, and its settings."""

    kind: StageKind
    name: str
    config: StageConfig | None
    """Settings; None for an imported baseline."""
    place: Location = ()
    """Place of the settings in the recipe; empty if they are in none."""
    labels: tuple[str, ...] = ()
    """For a baseline with a new head: its labels."""
    languages: tuple[str, ...] = ()
    """For a baseline that translates: the languages of sources and targets."""

    @property
    def settings(self) -> dict[str, Json]:
        """The settings that the result depends on, as a stage key holds them.

        Left out are the label, the stage's gates, the folder of a teacher's cache, how the work is divided
        and saved, and the paths of checkpoints, which are identified by their hashes.
        """
        if self.config is None:
            named: dict[str, Json] = {"labels": [*self.labels], "languages": [*self.languages]}
            return {"kind": "import", **{name: value for name, value in named.items() if value}}
        settings: dict[str, Any] = self.config.model_dump(mode="json", exclude={*RESULT_FREE})
        for keys, _ in losses_of(self.config):
            group = settings
            for key in keys:
                group = group[str(key)]
            del group["cache"]
        for keys, training in training_of(self.config):
            group = settings
            for key in keys:
                group = group[str(key)]
            for name in training.unkeyed:
                del group[name]
        for name in self.config.checkpoints:
            del settings[name]
        return settings

    def made(self, committed: CommittedStage) -> bool:
        """Whether a committed stage was made with these settings; formerly keyed settings are ignored."""
        settings = self.settings
        return _kept(committed.key.ingredients.get("stage"), settings) == settings


def _kept(held: Json, settings: Json) -> Json:
    """Return a stage's settings in a key, without formerly keyed ones.

    A preset, and the absence of a teacher, are still keyed.
    """
    if not isinstance(held, dict) or not isinstance(settings, dict):
        return held
    return {
        key: _kept(value, settings.get(key))
        for key, value in held.items()
        if key in settings or key not in ONCE_KEYED or value in (None, *STUDENT_PRESETS)
    }


def steps_of(recipe: Recipe) -> tuple[Step, ...]:
    """Return the rows of a run: its baseline, imported or made by the first stage, and then the stages."""
    steps = [Step(stage.kind, stage.name, stage, ("stages", i)) for i, stage in enumerate(recipe.stages)]
    if recipe.makes_model:
        steps[0] = replace(steps[0], kind="baseline", name=BASELINE_NAME)
    else:
        data = recipe.data
        steps.insert(0, Step("baseline", BASELINE_NAME, None, labels=data.labels, languages=data.languages))
    return tuple(steps)


def inputs_of(step: Step, setting: Setting) -> dict[str, str]:
    """Return the sha256 of everything that a stage reads from outside the run, by name."""
    if step.config is None:
        assert setting.recipe.model is not None
        read = {"model": setting.recipe.model}
    else:
        read = stage_of(step.config).inputs(step.config)
    return setting.texts | {name: source_sha256(path, setting.hashes.sha256) for name, path in read.items()}


def keys_of(setting: Setting) -> Iterator[tuple[Step, StageKey]]:
    """Yield each row with its key."""
    parent = None
    for step in steps_of(setting.recipe):
        key = key_of(step, parent, setting)
        parent = key.asked
        yield step, key


def key_of(step: Step, parent: str | None, setting: Setting) -> StageKey:
    """Return the key of a row after the row with the key `parent`; None for the first."""
    recipe = setting.recipe
    # The resulting number of threads is a separate ingredient, whether it was set or not.
    evaluation = recipe.evaluation.model_dump(mode="json", exclude={*TIMING_SETTINGS, "threads"})
    if not setting.task.heads:  # No model is made only for such a task: its records decide.
        evaluation["task"] = setting.task.name
    return stage_key(
        step.settings,
        parent=parent,
        threads=setting.threads,
        device=setting.device,
        seed=recipe.seed,
        inputs=dict(inputs_of(step, setting)),
        evaluation=evaluation,
        export=recipe.export.model_dump(mode="json"),
    )
