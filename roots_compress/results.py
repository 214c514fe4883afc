"""The figures of a run as frozen dataclasses, and their JSON form (`metrics.json`, schema 1).

Units stand in the names; parameters are counted after tying. A row's figures of quality and speed are its
task's (`tasks/`): this module keeps them by name, and `report/reading.py` asks which there must be.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue

from roots_compress.results_json import GROUPS, each_of, grouped_candidate, grouped_row, read_strictly
from roots_compress.rounding import bounded

SCHEMA = 1
LARGEST = 1e300
"""No figure comes near it, and sums and ratios of smaller ones are finite."""
TIMED = ("_per_second", "_ms")
"""Names of timings end with their unit."""

StageKind = str
"""What made a row: `baseline`, or a stage's `kind` in a recipe."""
Json = JsonValue
Count = Annotated[int, Field(ge=0, lt=2**63)]
Size = Annotated[int, Field(gt=0, lt=2**63)]
Number = Annotated[float, Field(gt=-LARGEST, lt=LARGEST)]
Positive = Annotated[float, Field(gt=0, lt=LARGEST)]
"""A figure that others are divided by."""


class _Figures:
    """How pydantic reads a dataclass of figures: no type for another, and keys of newer writers ignored."""

    __pydantic_config__ = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


@dataclass(frozen=True)
class Speed(_Figures):
    """Units of work a second at one length of context: the median of the repeats, and their extremes."""

    context: Count
    median: Positive
    low: Positive
    high: Positive
    repeats: tuple[Positive, ...] = ()
    """That of each repeat, in their order: graphs that are timed together take turns, so that the repeats of
    one number belong together. None in files of earlier versions."""


@dataclass(frozen=True)
class Protocol(_Figures):
    """Everything a figure of quality or a timing depends on beside the model."""

    block_size: Count
    windows: Count
    tokens: Count
    """Tokens scored."""
    text_bytes: Count
    """UTF-8 bytes of the scored text."""
    bos: bool
    """Whether each window opens with the BOS that the tokenizer adds to a text; it is not scored itself."""
    text_sha256: str
    tokenizer_sha256: str
    contexts: tuple[Count, ...]
    decode_tokens: Count
    repeats: Count
    threads: Count
    text: str
    """What the held-out text is, in words."""


@dataclass(frozen=True)
class Metrics(_Figures):
    """The figures of one artifact."""

    parameters: Count
    bytes: Size
    quality: dict[str, Number]
    """From the ONNX graph, by the names of the task's metrics. The first one's name after `torch_` holds the
    same of the checkpoint's own model."""
    timings: dict[str, tuple[Speed, ...]]
    """By the names of the task's workloads, an entry for each length; empty until a run's end."""
    peak_rss_bytes: Count
    intervals: dict[str, tuple[Number, Number]] = field(default_factory=dict)
    """Bounds that hold a metric with 95%, as far as the text that was drawn decides it, by its name. A name
    that ends in `_ratio`, or `_change`, means the first metric against the first row's."""
    bytes_by_group: dict[str, Count] = field(default_factory=dict)
    """What the graph's bytes are, by groups of tensors; together `bytes`."""
    scores: tuple[tuple[Number, Count], ...] = ()
    """The first metric by example: its sum over the example's scored places, and how many these are. Rows
    with equal counts were measured on the same examples, and can be compared in pairs."""


@dataclass(frozen=True)
class Sample(_Figures):
    """What a model wrote after a held-out prompt."""

    prompt: str
    text: str


@dataclass(frozen=True)
class Point(_Figures):
    """One value of a curve."""

    step: Count
    value: Number


@dataclass(frozen=True)
class LayerError(_Figures):
    """What a stage did to one weight, as its calibration measured it."""

    name: str
    """The weight's module, or its block, as the checkpoint names it."""
    error: Number
    """The squared error of its outputs, against their square."""
    higher_precision: bool = False
    """Whether the stage kept it at a higher precision, because it costs too much otherwise."""


@dataclass(frozen=True)
class GateResult(_Figures):
    """Whether one bound of a recipe was kept."""

    gate: str
    limit: Number
    value: Number | None
    """None where it was not measured, or cannot be compared: `note` says why."""
    passed: bool
    stage: str = ""
    """The row that was bounded."""
    against: str = ""
    """What the row was compared with: another row, after a `/` one of a stored run. Empty where a figure was
    bounded by itself."""
    interval: tuple[Number, Number] | None = None
    """What the repeats of a timing allow for the value. A gate is missed only where all of it is beyond."""
    note: str = ""
    """What a reader must know of the value: why there is none, or that the interval holds the limit."""

    @property
    def line(self) -> str:
        """What was found, in a line: `min_decode_speedup is 1.96 (1.9 to 2.05) against baseline, limit 2`."""
        limit, value = bounded(self.limit, self.value, self.interval)
        if self.value is None:
            return f"{self.gate} {self.note}, limit {limit}"
        against = f" against {self.against}" if self.against else ""
        note = f" ({self.note})" if self.note else ""
        return f"{self.gate} is {value}{against}, limit {limit}{note}"


@dataclass(frozen=True)
class StageResult(_Figures):
    """One row of a report: what the stage was, how long it took, what it made, and how that performs."""

    index: Count
    kind: StageKind
    name: str
    seconds: Number
    metrics: Metrics
    onnx: str
    """The graph, as a path relative to the run."""
    notes: dict[str, Json] = field(default_factory=dict)
    """What the stage decided: widths kept, formats chosen, losses reached."""
    gates: tuple[GateResult, ...] = ()
    """The stage's own bounds, by their keys in its settings, and whether they were kept."""
    samples: tuple[Sample, ...] = ()
    """Continuations of the same held-out prompts by each stage's graph; none where a task writes no text."""
    curves: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    """What was followed while the stage trained, by its name (`loss`, say), by rising step."""
    layer_errors: tuple[LayerError, ...] = ()
    """What the stage's calibration measured of each weight that it changed, in the model's order."""
    check_seconds: Number | None = None
    """What came after the stage's own work: to save, export, check and measure what it made. None in files of
    earlier versions."""
    making_rss_bytes: Count | None = None
    """The most memory that the run's process held meanwhile; None where the system does not tell."""

    @property
    def whole_seconds(self) -> float:
        """What the row took, but for its share of the timing at the end of a run."""
        return self.seconds + (self.check_seconds or 0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the row as `metrics.json` holds it, every figure beside the stage's own keys."""
        row = asdict(self)
        for name, value in row.pop("metrics").items():
            row.update(value if name in GROUPS else {name: value})
        return row

    @classmethod
    def from_json(cls, row: object) -> StageResult:
        """Rebuild a row from `metrics.json`.

        Raises:
            ValueError: a key is missing, or holds what no figure can be; the message begins with the key.
        """
        return read_strictly(cls, _grouped(row))


@dataclass(frozen=True)
class CandidateResult(_Figures):
    """One recipe that a search has tried, and what came of it."""

    stages: tuple[str, ...]
    """Names of the stages added to the model as it is; none for the model itself."""
    role: Literal["baseline", "candidate", "control"]
    """`control`: a recipe without what the search is about, to tell what that is worth."""
    bytes: Size
    figures: dict[str, Number]
    """Milliseconds for a unit of the work that decides, at the longest context; the metric that decides,
    against the baseline's. By the task's names; in JSON they are keys of the candidate itself."""
    on_front: bool
    """Whether no other is at least as good in all three figures, and better in one."""
    keeps_budgets: bool
    seconds: Number | None = None
    """What its last stage took, with its graph and its figures; the stages before it are other candidates.
    None in files of earlier versions."""


@dataclass(frozen=True)
class SearchResult(_Figures):
    """What a search has found, by rising size."""

    candidates: tuple[CandidateResult, ...]
    best: tuple[str, ...]
    """The stages of the best one, which the run then is."""
    failed: dict[str, str]
    """Why a candidate could not be made, by its label."""
    untried: Count
    """Candidates for which the time did not last."""
    max_minutes: Number


def candidate_label(stages: tuple[str, ...]) -> str:
    """Return a candidate's stages in a row, as people read them."""
    return " > ".join(stages) or "as it is"


@dataclass(frozen=True)
class RunMetrics(_Figures):
    """All that `metrics.json` of a run holds."""

    name: str
    machine: dict[str, Json]
    protocol: Protocol
    stages: tuple[StageResult, ...]
    gates: tuple[GateResult, ...] = ()
    search: SearchResult | None = None
    """How the run's recipe was found, where it was searched for."""
    task: str = "causal_lm"
    """What the models are for, by the name of a task; files from before there were others do not say it."""
    timing_seconds: Number | None = None
    """What the timing of all graphs at the end took; None in files of earlier versions."""
    unfinished: str | None = None
    """Why a later attempt at the run, which would have replaced these figures, has not finished. Files in
    runs do not have it; what `report` writes does."""

    def to_json(self) -> dict[str, Any]:
        """Return the document as written to `metrics.json`."""
        document = {"schema": SCHEMA, **asdict(self), "stages": [stage.to_json() for stage in self.stages]}
        if self.unfinished is None:
            del document["unfinished"]
        if self.search is None:
            del document["search"]
        else:
            rows = document["search"]["candidates"]
            document["search"]["candidates"] = [{**row, **row.pop("figures")} for row in rows]
        return document

    @classmethod
    def from_json(cls, document: object) -> RunMetrics:
        """Rebuild a run's figures.

        Raises:
            ValueError: the document is not of schema 1, lacks a key, or holds what no figure can be; the
                message begins with the key.
        """
        if not isinstance(document, dict):
            raise ValueError("it holds no object")
        if document.get("schema") != SCHEMA:
            raise ValueError(f"schema is {document.get('schema')!r:.60}, not {SCHEMA}")
        nested = {**document, "stages": each_of(document.get("stages"), _grouped)}
        if isinstance(search := document.get("search"), dict):
            nested["search"] = {**search, "candidates": each_of(search.get("candidates"), _candidate)}
        return read_strictly(cls, {key: value for key, value in nested.items() if key in document})


def _grouped(row: object) -> object:
    return grouped_row(row, StageResult, Metrics, timed=TIMED)


def _candidate(row: object) -> object:
    return grouped_candidate(row, CandidateResult)
