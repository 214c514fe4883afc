"""The figures of a run as frozen dataclasses, and their JSON form (`metrics.json`, schema 1).

Units stand in the names; perplexity is dimensionless, and parameters are counted after tying.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

SCHEMA = 1
DIVISORS = ("bytes", "perplexity", "median")
"""Figures that others are divided by."""
LARGEST = 1e300
"""No figure comes near it, and sums and ratios of smaller ones are finite."""

StageKind = str
"""What made a row: `baseline`, or a stage's `kind` in a recipe."""
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True)
class Speed:
    """Tokens per second at one context length: the median of the repeats, and their extremes."""

    context: int
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Protocol:
    """Everything a perplexity or a timing depends on beside the model."""

    block_size: int
    windows: int
    tokens: int
    """Tokens scored."""
    text_bytes: int
    """UTF-8 bytes of the scored text."""
    bos: bool
    """Whether each window opens with the BOS that the tokenizer adds to a text; it is not scored itself."""
    text_sha256: str
    tokenizer_sha256: str
    contexts: tuple[int, ...]
    decode_tokens: int
    repeats: int
    threads: int
    text: str
    """What the held-out text is, in words."""


@dataclass(frozen=True)
class Metrics:
    """The figures of one artifact. `perplexity` and `bits_per_byte` come from the ONNX graph."""

    parameters: int
    bytes: int
    perplexity: float
    bits_per_byte: float
    torch_perplexity: float
    prefill_tokens_per_second: tuple[Speed, ...]
    decode_tokens_per_second: tuple[Speed, ...]
    peak_rss_bytes: int


@dataclass(frozen=True)
class GateResult:
    """Whether one bound of a recipe was kept."""

    gate: str
    limit: float
    value: float
    passed: bool


@dataclass(frozen=True)
class StageResult:
    """One row of a report: what the stage was, how long it took, what it made, and how that performs."""

    index: int
    kind: StageKind
    name: str
    seconds: float
    metrics: Metrics
    onnx: str
    """The graph, as a path relative to the run."""
    notes: dict[str, Json] = field(default_factory=dict)
    """What the stage decided: widths kept, formats chosen, losses reached."""
    gates: tuple[GateResult, ...] = ()
    """The stage's own bounds, by their keys in its settings, and whether they were kept."""

    def to_json(self) -> dict[str, Any]:
        """Return the row as `metrics.json` holds it, the metrics' fields beside the stage's own."""
        row = asdict(self)
        row.update(row.pop("metrics"))
        return row

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> StageResult:
        """Rebuild a row from `metrics.json`; unknown keys, from newer writers, are ignored."""
        figures = {f.name: row[f.name] for f in fields(Metrics)}
        for key in ("prefill_tokens_per_second", "decode_tokens_per_second"):
            figures[key] = tuple(Speed(**speed) for speed in _listed(figures[key]))
        own = {f.name: row[f.name] for f in fields(cls) if f.name not in ("metrics", "gates")}
        gates = tuple(GateResult(**gate) for gate in _listed(row.get("gates", ())))
        return require_sound(cls(metrics=Metrics(**figures), gates=gates, **own))


@dataclass(frozen=True)
class CandidateResult:
    """One recipe that a search has tried, and what came of it."""

    stages: tuple[str, ...]
    """Names of the stages added to the model as it is; none for the model itself."""
    role: Literal["baseline", "candidate", "control"]
    """`control`: a recipe without what the search is about, to tell what that is worth."""
    bytes: int
    decode_ms: float
    """Milliseconds a token, at the longest context timed."""
    perplexity_ratio: float
    on_front: bool
    """Whether no other is at least as good in all three figures, and better in one."""
    keeps_budgets: bool


def figures_line(size: float, decode_ms: float, perplexity_ratio: float) -> str:
    """Return a candidate's bytes, milliseconds a token and perplexity ratio in a row, as people read them."""
    return f"{size / 1e6:.2f} MB, {decode_ms:.3g} ms a token, {perplexity_ratio:.3f}x the perplexity"


@dataclass(frozen=True)
class SearchResult:
    """What a search has found, by rising size."""

    candidates: tuple[CandidateResult, ...]
    best: tuple[str, ...]
    """The stages of the best one, which the run then is."""
    failed: dict[str, str]
    """Why a candidate could not be made, by its label."""
    untried: int
    """Candidates for which the time did not last."""
    max_minutes: float


def candidate_label(stages: tuple[str, ...]) -> str:
    """Return a candidate's stages in a row, as people read them."""
    return " > ".join(stages) or "as it is"


@dataclass(frozen=True)
class RunMetrics:
    """All that `metrics.json` of a run holds."""

    name: str
    machine: dict[str, Json]
    protocol: Protocol
    stages: tuple[StageResult, ...]
    gates: tuple[GateResult, ...] = ()
    search: SearchResult | None = None
    """How the run's recipe was found, where it was searched for."""

    def to_json(self) -> dict[str, Any]:
        """Return the document as written to `metrics.json`."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "machine": self.machine,
            "protocol": asdict(self.protocol),
            "stages": [stage.to_json() for stage in self.stages],
            "gates": [asdict(gate) for gate in self.gates],
            **({"search": asdict(self.search)} if self.search else {}),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> RunMetrics:
        """Rebuild a run's figures.

        Raises:
            KeyError, TypeError, ValueError: the document is not of schema 1, or holds what no figure can be.
        """
        if document["schema"] != SCHEMA:
            raise TypeError(f"metrics schema {document['schema']} is not {SCHEMA}")
        protocol = dict(document["protocol"])
        protocol["contexts"] = tuple(_listed(protocol["contexts"]))
        run = cls(
            name=document["name"],
            machine=document["machine"],
            protocol=Protocol(**protocol),
            stages=tuple(StageResult.from_json(row) for row in _listed(document["stages"])),
            gates=tuple(GateResult(**gate) for gate in _listed(document["gates"])),
            search=_search_from(document["search"]) if "search" in document else None,
        )
        return require_sound(run)


def _search_from(document: dict[str, Any]) -> SearchResult:
    rows = [{**row, "stages": tuple(row["stages"])} for row in document["candidates"]]
    return SearchResult(
        **{
            **document,
            "candidates": tuple(CandidateResult(**row) for row in rows),
            "best": tuple(document["best"]),
        }
    )


def _listed(value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{value!r:.60} is not a list")
    return value


_Figures = TypeVar("_Figures")


def require_sound(figures: _Figures) -> _Figures:
    """Return figures that were read from a file, after checking each against its field's type.

    Raises:
        TypeError, ValueError: a field has another type, or a number that is not finite or divides by nothing.
    """
    assert is_dataclass(figures)
    hints = _hints(type(figures))
    for each in fields(figures):
        _check(getattr(figures, each.name), hints[each.name], each.name)
    return figures


_hints: Callable[[Any], dict[str, Any]] = cache(get_type_hints)


def _check(value: object, hint: Any, name: str) -> None:
    """Check a value against the type of its field; what may hold any JSON is left as it is."""
    if isinstance(hint, type) and is_dataclass(hint):
        if not isinstance(value, hint):
            raise TypeError(f"{name} is {value!r:.60}")
        require_sound(value)
    elif get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            raise TypeError(f"{name} is {value!r:.60}, not a list")
        for item in value:
            _check(item, get_args(hint)[0], name)
    elif get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{name} is {value!r:.60}")
    elif get_origin(hint) in (Union, UnionType):
        if value is not None or type(None) not in get_args(hint):
            _check(value, next(part for part in get_args(hint) if part is not type(None)), name)
    elif get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise TypeError(f"{name} is {value!r:.60}, not a group")
    elif type(value) is not hint and not (hint is float and type(value) is int):
        raise TypeError(f"{name} is {value!r:.60}, not {hint.__name__}")
    elif isinstance(value, int | float) and not abs(value) < LARGEST:
        raise ValueError(f"{name} is no finite number")
    elif name in DIVISORS and isinstance(value, int | float) and value <= 0:
        raise ValueError(f"{name} is {value}, not above 0")
