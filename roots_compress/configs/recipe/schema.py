"""What a recipe may say: the union of the stages' settings, and the rules that hold between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from roots_compress.configs.base import (
    PathSetting,
    PositiveFloat,
    PositiveInt,
    Settings,
    StageSettings,
    faults_at,
)
from roots_compress.configs.data import DataConfig
from roots_compress.configs.distill import DistillConfig
from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.configs.export import ExportConfig
from roots_compress.configs.prune import PruneConfig
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.configs.recipe.walk import placed_stages
from roots_compress.configs.recipe.windows import context_faults
from roots_compress.configs.sparsify import SparsifyConfig
from roots_compress.configs.train import TrainConfig
from roots_compress.configs.tune import TuneConfig
from roots_compress.errors import Location, recipe_key

StageConfig = Annotated[
    TrainConfig | TuneConfig | DistillConfig | PruneConfig | SparsifyConfig | QuantizeConfig,
    Field(discriminator="kind"),
]

STAGES: dict[str, type[StageSettings]] = {
    member.model_fields["kind"].default: member for member in get_args(get_args(StageConfig)[0])
}
"""The settings of each kind of stage."""
MAKERS = " or ".join(f"'{kind}'" for kind, settings in STAGES.items() if settings.makes_model)
"""The kinds that may begin a recipe without a model, in words."""
CHOICES = [kind for kind, settings in STAGES.items() if not settings.makes_model]
"""The kinds that a search may choose: it starts from a model that is there."""

BASELINE_NAME = "baseline"
"""Label of the untouched model's row; no stage may take it."""


class GatesConfig(Settings):
    """Bounds on the final stage, judged against the baseline. A run that misses one exits with code 3."""

    max_perplexity_ratio: PositiveFloat | None = None
    """Largest perplexity, as a multiple of the baseline's."""
    max_response_perplexity: PositiveFloat | None = None
    """Largest perplexity of the answers to held-out instructions."""
    max_response_perplexity_ratio: PositiveFloat | None = None
    """The same, as a multiple of the baseline's: 0.7 asks that it falls by 30 %."""
    max_pseudo_perplexity_ratio: PositiveFloat | None = None
    """Largest pseudo-perplexity of a masked language model, as a multiple of the baseline's."""
    min_cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Smallest mean cosine of sentence embeddings to the baseline's."""
    min_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    """Smallest share of the held-out texts that a classifier gives their label."""
    min_macro_f1: Annotated[float, Field(ge=0, le=1)] | None = None
    """Smallest mean F1 of a classifier's labels."""
    max_target_perplexity_ratio: PositiveFloat | None = None
    """Largest perplexity of an encoder-decoder's targets, as a multiple of the baseline's."""
    min_exact_match: Annotated[float, Field(ge=0, le=1)] | None = None
    """Smallest share of the held-out pairs whose target an encoder-decoder writes as it is."""
    min_chrf: Annotated[float, Field(ge=0, le=100)] | None = None
    """Smallest chrF of what an encoder-decoder writes; sacrebleu must be installed."""
    max_bytes: PositiveInt | None = None
    """Largest graph, in bytes: every file it needs to run."""
    max_decode_ms: PositiveFloat | None = None
    """Most milliseconds for a token decoded, on this machine, at the longest of the evaluation's contexts."""
    max_encode_ms: PositiveFloat | None = None
    """Most milliseconds for a token of a text that an encoder reads, at the longest of the evaluation's
    contexts."""
    min_size_ratio: PositiveFloat | None = None
    """Smallest ratio of the baseline's bytes to the final graph's: 4.0 asks for a quarter of the size."""
    min_decode_speedup: PositiveFloat | None = None
    """Smallest ratio of the final graph's decode speed to the baseline's, both measured in the same run."""
    min_encode_speedup: PositiveFloat | None = None
    """Smallest ratio of the final encoder's speed to the baseline's, both measured in the same run."""


class SearchConfig(Settings):
    """Try the choices in every order, and go on with what serves the gates best.

    A candidate takes at most one choice of each kind, one that quantizes last, after the recipe's `stages`.
    The gates are the search's budgets. The run ends as the best candidate; see docs/guides/search.md.
    """

    max_minutes: PositiveFloat
    """Minutes after which no further candidate is begun; a stage under way is finished."""
    choices: Annotated[tuple[StageConfig, ...], Field(strict=False, min_length=1, max_length=20)] = (
        PruneConfig(kind="prune", name="prune-25", ratio=0.25),
        PruneConfig(kind="prune", name="prune-50", ratio=0.5),
        QuantizeConfig(kind="quantize", name="int8", scheme="int8"),
        QuantizeConfig(kind="quantize", name="int4", scheme="int4"),
        QuantizeConfig(kind="quantize", name="fp16", scheme="fp16"),
        DistillConfig(kind="distill", name="distill-small", student="small"),
    )
    """Stages to choose from, each as it would stand under `stages`, with a `name` of its own."""


class Recipe(Settings):
    """What to make of a language model: the model, the text, the stages in order, and the gates.

    The stages form a chain: each takes the checkpoint the one before it made.
    """

    recipe_only: ClassVar[str] = "name model export stages gates search"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9_-])?$", max_length=64)]
    """Names the run and, unless another folder is asked for, its folder under `runs/`."""
    model: PathSetting | None = None
    """The model to compress: a ROOTS or Hugging Face directory, or a GGUF file. Not needed where the first
    stage is `train`, which then makes the model that is the run's baseline."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Fixes every random choice of the run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where stages compute. `auto`: a GPU where there is one, otherwise the CPU."""
    data: DataConfig = DataConfig()
    """Training, calibration and held-out text."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How every stage is measured."""
    export: ExportConfig = ExportConfig()
    """How every stage becomes an ONNX graph."""
    stages: Annotated[tuple[StageConfig, ...], Field(strict=False, max_length=99)] = ()
    """The stages, in order; each entry's `kind` says which. Without any, the model alone is measured."""
    gates: GatesConfig = GatesConfig()
    """Bounds the final stage must keep."""
    search: SearchConfig | None = None
    """Search for the stages that serve the gates best, in place of a chain that is given."""

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
            f"is required, because only a first stage of kind {MAKERS} starts from nothing, and this recipe "
            f"begins with '{recipe.stages[0].kind}'; name a model here or with --model",
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
    """A search starts from a whole model, and must know what for."""
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
    if recipe.gates == GatesConfig():
        yield (
            ("search",),
            f"needs a budget: give at least one of the gates {', '.join(GatesConfig.model_fields)}",
        )


def _stage_faults(recipe: Recipe) -> Iterator[tuple[Location, str]]:
    """Each stage knows what it cannot be told in this recipe."""
    for place, stage in placed_stages(recipe):
        begins = recipe.makes_model and place == ("stages", 0)
        for key, text in stage.faults_in_recipe(makes_model=begins, portable=recipe.export.portable):
            yield (*place, *key), text


def _context_faults(recipe: Recipe) -> Iterator[tuple[Location, str]]:
    """Where the recipe itself makes the model, its context length bounds every window that is asked for.

    Lengths that the recipe leaves out are fitted to the model later, and windows for calibration in any case.
    """
    limit = recipe.stages[0].new_context if recipe.makes_model and recipe.stages else None
    if limit is None:
        return
    yield from context_faults(recipe, [limit] * (len(list(placed_stages(recipe))) + 1))
    longest = max(recipe.evaluation.contexts) + recipe.evaluation.decode_tokens
    asked = "contexts" in recipe.evaluation.model_fields_set and recipe.stages[0].decodes
    if asked and recipe.evaluation.decode_tokens < limit < longest:
        yield (
            ("evaluation", "contexts"),
            f"the longest and the {recipe.evaluation.decode_tokens} tokens decoded after it take {longest} "
            f"tokens, but the model's context (max_position_embeddings) is {limit}",
        )
