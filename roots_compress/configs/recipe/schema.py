"""The schema of a recipe: the union of the stages' settings, and the rules between them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from roots_compress.configs.base import PathSetting, PositiveFloat, Settings, faults_at
from roots_compress.configs.data import DataConfig
from roots_compress.configs.distill import DistillConfig
from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.configs.export import ExportConfig
from roots_compress.configs.gates import AGAINST, GatesConfig
from roots_compress.configs.prune import PruneConfig
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.configs.recipe.walk import placed_stages
from roots_compress.configs.recipe.windows import context_faults
from roots_compress.configs.sparsify import SparsifyConfig
from roots_compress.configs.stage import StageSettings
from roots_compress.configs.train import TrainConfig
from roots_compress.configs.tune import TuneConfig
from roots_compress.errors import Key, Location, did_you_mean, recipe_key, with_keys

StageConfig = Annotated[
    TrainConfig | TuneConfig | DistillConfig | PruneConfig | SparsifyConfig | QuantizeConfig,
    Field(discriminator="kind"),
]

STAGES: dict[str, type[StageSettings]] = {
    member.model_fields["kind"].default: member for member in get_args(get_args(StageConfig)[0])
}
"""The settings of each kind of stage."""
MAKERS = " or ".join(f"'{kind}'" for kind, settings in STAGES.items() if settings.makes_model)
"""The kinds that may begin a recipe without a model, as text for messages."""
CHOICES = [kind for kind, settings in STAGES.items() if not settings.makes_model]
"""The kinds that a search may choose: those that need a model to start from."""

BASELINE_NAME = "baseline"
"""Label of the untouched model's row; no stage may take it."""


CandidateNames = Annotated[tuple[str, ...], Field(strict=False)]


class SearchConfig(Settings):
    """Try the choices in every order, and end with the candidate that keeps the gates best.

    A candidate takes at most one choice of each kind, one that quantizes last, after the recipe's `stages`.
    The gates are the search's budgets. The run ends as the best candidate; see docs/guides/search.md.
    """

    max_minutes: PositiveFloat
    """Minutes after which no new candidate is begun; a stage under way is finished, and of listed candidates
    the one that was begun."""
    choices: Annotated[tuple[StageConfig, ...], Field(strict=False, min_length=1, max_length=20)] = (
        PruneConfig(kind="prune", name="prune-25", ratio=0.25),
        PruneConfig(kind="prune", name="prune-50", ratio=0.5),
        QuantizeConfig(kind="quantize", name="int8", scheme="int8"),
        QuantizeConfig(kind="quantize", name="int4", scheme="int4"),
        QuantizeConfig(kind="quantize", name="fp16", scheme="fp16"),
        DistillConfig(kind="distill", name="distill-small", student="small"),
    )
    """Stages to choose from, each written as under `stages`, with a unique `name`."""
    candidates: Annotated[tuple[CandidateNames, ...], Field(strict=False, min_length=1)] | None = None
    """The candidates to try, in this order, each a list of names of choices; an empty list is the unchanged
    model. The search then ends at the first candidate that keeps every gate, and skips those that it predicts
    to miss one by far. Without this key, every order of the choices is a candidate."""


class Recipe(Settings):
    """What to do with a language model: the model, the text, the stages in order, and the gates.

    The stages form a chain: each starts from the checkpoint of the one before it.
    """

    recipe_only: ClassVar[str] = "name model export stages gates search"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9_-])?$", max_length=64)]
    """Names the run and, unless another folder is asked for, its folder under `runs/`."""
    model: PathSetting | None = None
    """The model to compress: a folder of Hugging Face or of this program, or a GGUF file. Not needed if the
    first stage is `train`: the model that it makes is then the run's baseline."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Fixes every random choice of the run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device of the stages. `auto`: a GPU if there is one, otherwise the CPU."""
    data: DataConfig = DataConfig()
    """Training, calibration and held-out text."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How every stage is measured."""
    export: ExportConfig = ExportConfig()
    """How every stage becomes an ONNX graph."""
    stages: Annotated[tuple[StageConfig, ...], Field(strict=False, max_length=99)] = ()
    """The stages in order; each has a `kind`. Without any, only the model is measured."""
    gates: GatesConfig = GatesConfig()
    """Bounds that the final stage must keep. Any stage may have `gates` of its own."""
    search: SearchConfig | None = None
    """Search for the chain of stages that keeps the gates best, after the given `stages`."""

    @property
    def makes_model(self) -> bool:
        """Whether the first stage trains a model from nothing, which is then the baseline."""
        return self.model is None

    @model_validator(mode="after")
    def _check_stages_together(self) -> Self:
        faults = [
            *_origin_faults(self),
            *_order_faults(self),
            *_name_faults(self),
            *_context_faults(self),
            *_search_faults(self),
            *_gate_faults(self),
            *_stage_faults(self),
        ]
        if faults:
            raise faults_at(faults, of_recipe=True)
        return self


def _origin_faults(recipe: Recipe) -> Iterator[tuple[Location, str]]:
    """A model must be named or made."""
    if not recipe.stages:
        if recipe.model is None:
            yield (
                ("stages",),
                f"there is nothing to do: name a 'model', or begin with a stage of kind {MAKERS}",
            )
        return
    if recipe.model is None and not recipe.stages[0].makes_model:
        yield (
            ("model",),
            "is required: name a model here or with --model (only a recipe that begins with a stage of kind "
            f"{MAKERS} needs none, and this one begins with '{recipe.stages[0].kind}')",
        )


def _order_faults(recipe: Recipe) -> Iterator[tuple[Location, str]]:
    """Nothing can change a model's weights once they are quantized."""
    quantized: StageConfig | None = None
    for index, stage in enumerate(recipe.stages):
        if quantized is not None:
            yield (
                ("stages", index, "kind"),
                f"'{stage.name}' ({stage.kind}) cannot come after '{quantized.name}' ({quantized.kind}), "
                "because quantized weights cannot be changed; move it before",
            )
        elif stage.quantizes:
            quantized = stage


def _name_faults(recipe: Recipe) -> Iterator[tuple[Location, str]]:
    """Reports and comparisons find a stage by its name."""
    taken: dict[str, str] = {BASELINE_NAME: "the row of the untouched model"}
    for place, stage in placed_stages(recipe):
        if stage.name in taken:
            yield (
                (*place, "name"),
                f"'{stage.name}' is already the name of {taken[stage.name]}; give this stage another 'name'",
            )
        taken.setdefault(stage.name, recipe_key(*place))


def _search_faults(recipe: Recipe) -> Iterator[tuple[Location, str]]:
    """Stages before a search may only make its model, and its budgets are the gates."""
    if recipe.search is None:
        return
    for index, stage in enumerate(recipe.stages):
        if not stage.makes_model:
            yield (
                ("stages", index, "kind"),
                f"'{stage.name}' ({stage.kind}) cannot stand before a search, which decides where it goes; "
                "move it to search.choices",
            )
    for index, choice in enumerate(recipe.search.choices):
        if choice.makes_model:
            place = ("search", "choices", index, "kind")
            yield place, f"'{choice.kind}' is not one of {', '.join(CHOICES)}"
    yield from _candidate_faults(recipe.search)
    if not recipe.gates.limits:
        yield (
            ("search",),
            "needs a budget: give at least one of the gates max_perplexity_ratio, min_decode_speedup, "
            "max_bytes or another that fits the model",
        )


def _candidate_faults(search: SearchConfig) -> Iterator[tuple[Location, str]]:
    """A candidate names choices, each kind at most once, and one that quantizes last."""
    choices = {choice.name: choice for choice in search.choices}
    for index, names in enumerate(search.candidates or ()):
        place = ("search", "candidates", index)
        if unknown := next((name for name in names if name not in choices), None):
            yield place, f"'{unknown}' is no choice{did_you_mean(unknown, list(choices))}"
        elif len({choices[name].kind for name in names}) < len(names):
            yield place, "takes two choices of one kind; take at most one of each"
        elif any(choices[name].quantizes for name in names[:-1]):
            yield place, "goes on after quantization, and quantized weights cannot be changed; quantize last"


def _gate_faults(recipe: Recipe) -> Iterator[tuple[Location, str]]:
    """Gates compare with an earlier row, and those of a search with the baseline."""
    made = [BASELINE_NAME, *(stage.name for stage in recipe.stages)]
    if recipe.makes_model:
        del made[1:2]  # the first stage makes the baseline
    placed: list[tuple[Location, GatesConfig, list[str]]] = [(("gates",), recipe.gates, made[:-1] or made)]
    rows = len(made) - len(recipe.stages)
    for index, stage in enumerate(recipe.stages):
        if stage.gates is not None:
            placed.append((("stages", index, "gates"), stage.gates, made[: max(rows + index, 1)]))
    for place, gates, earlier in placed:
        if gates.against is None:
            continue
        if not gates.comparing:
            yield (*place, AGAINST), "is given, but none of the gates here compares a row with another"
        elif recipe.search is not None:
            yield (*place, AGAINST), "a search compares its candidates with the baseline; leave it out"
        elif gates.stored is None and gates.against not in earlier:
            yield (
                (*place, AGAINST),
                f"'{gates.against}' is not the name of an earlier stage, which are {', '.join(earlier)}"
                f"{did_you_mean(gates.against, earlier)}; write a stored run's folder with a '/': "
                f"./{gates.against}",
            )
    for index, choice in enumerate(recipe.search.choices if recipe.search else ()):
        if choice.gates is not None:
            place = ("search", "choices", index, "gates")
            yield place, "a search keeps the recipe's gates alone; set them at the top of the recipe"


def _stage_faults(recipe: Recipe) -> Iterator[tuple[Location, str]]:
    """Each stage reports its own faults in this recipe."""
    for place, stage in placed_stages(recipe):
        begins = recipe.makes_model and place == ("stages", 0)
        for key, text in stage.faults_in_recipe(makes_model=begins, portable=recipe.export.portable):
            yield (*place, *key), with_keys(text, partial(Key.within, group=place, of_recipe=True))


def _context_faults(recipe: Recipe) -> Iterator[tuple[Location, str]]:
    """If the recipe itself makes the model, its context length bounds every window in the recipe.

    Lengths that the recipe leaves out are fitted to the model later, and windows for calibration always.
    """
    limit = recipe.stages[0].new_context if recipe.makes_model and recipe.stages else None
    if limit is None:
        return
    yield from context_faults(recipe, [limit] * (len(list(placed_stages(recipe))) + 1))
    longest = max(recipe.evaluation.contexts) + recipe.evaluation.decode_tokens
    # Whether they were given does not matter: a run's own recipe holds every default, and must stay valid.
    usual = type(recipe.evaluation).model_fields["contexts"].default
    asked = recipe.evaluation.contexts != usual and recipe.stages[0].decodes
    if asked and recipe.evaluation.decode_tokens < limit < longest:
        yield (
            ("evaluation", "contexts"),
            f"the longest and the {recipe.evaluation.decode_tokens} tokens decoded after it take {longest} "
            f"tokens, but the model's context (max_position_embeddings) is {limit}",
        )
