"""Figures as they are read: what older and newer writers leave, and what is refused by its key."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roots_compress.errors import InputError
from roots_compress.report.reading import read_figures
from roots_compress.results import RunMetrics
from tests.report.figures import SEARCH, run, stage

RUN = replace(run(stage(), stage(1, "quantize", size=2_000_000)), search=SEARCH)
DOCUMENT: dict[str, Any] = json.loads(json.dumps(RUN.to_json()))


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    holder: Any = document
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = value
    return document


def test_a_row_s_figures_are_keys_of_its_own() -> None:
    assert list(DOCUMENT["stages"][0]) == [
        *("index", "kind", "name", "seconds", "onnx", "notes", "gates", "samples", "curves", "layer_errors"),
        *("check_seconds", "making_rss_bytes"),
        *("parameters", "bytes", "perplexity", "bits_per_byte", "torch_perplexity"),
        *("prefill_tokens_per_second", "decode_tokens_per_second", "peak_rss_bytes"),
        *("intervals", "bytes_by_group", "scores"),
    ]


def test_files_without_a_task_and_what_came_later_are_a_causal_lm_s() -> None:
    old = copy.deepcopy(DOCUMENT)
    del old["task"], old["timing_seconds"]
    for row in old["stages"]:
        for later in ("gates", "samples", "curves", "layer_errors", "intervals", "bytes_by_group", "scores"):
            del row[later]
        del row["check_seconds"], row["making_rss_bytes"]
    assert RunMetrics.from_json(old) == RUN


@pytest.mark.parametrize(
    "path", [("added",), ("protocol", "added"), ("stages", 0, "added"), ("search", "added")]
)
def test_keys_of_newer_writers_are_ignored(path: tuple[str | int, ...]) -> None:
    assert RunMetrics.from_json(changed(path, {"a": [1]})) == RUN


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("schema",), 2, "schema is 2, not 1"),
        (("stages",), 5, "stages: "),
        (("stages",), [], "stages: there is none"),
        (("stages", 1), 5, "stages[1]: "),
        (("stages", 1, "bytes"), 0, "stages[1].bytes: "),
        (("stages", 1, "bytes"), "5", "stages[1].bytes: "),
        (("stages", 1, "parameters"), 1.5, "stages[1].parameters: "),
        (("stages", 1, "perplexity"), "low", "stages[1].perplexity is missing, or is not a number"),
        (("stages", 1, "perplexity"), 0, "stages[1].perplexity is 0"),
        (("stages", 1, "perplexity"), 1e305, "stages[1].perplexity: "),
        (("stages", 1, "bits_per_byte"), float("nan"), "stages[1].bits_per_byte: "),
        (
            ("stages", 1, "torch_perplexity"),
            True,
            "stages[1].torch_perplexity is missing, or is not a number",
        ),
        (("stages", 1, "decode_tokens_per_second"), None, "stages[1].decode_tokens_per_second: "),
        (("stages", 1, "decode_tokens_per_second", 0, "median"), 0, "decode_tokens_per_second[0].median: "),
        (("protocol", "contexts"), "128", "protocol.contexts: "),
        (("search", "candidates", 0, "role"), "other", "search.candidates[0].role: "),
        (("search", "candidates", 0, "perplexity_ratio"), -1.0, "search.candidates[0].perplexity_ratio is"),
    ],
)
def test_damage_is_told_by_file_and_key(
    path: tuple[str | int, ...], value: Any, told: str, tmp_path: Path
) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(changed(path, value)))
    with pytest.raises(InputError, match="cannot be read as the figures of a run") as caught:
        read_figures(tmp_path)
    assert caught.value.where == str(tmp_path / "metrics.json")
    assert told in caught.value.message


@pytest.mark.parametrize("key", ["name", "machine", "protocol", "stages"])
def test_a_key_that_is_missing_is_told(key: str) -> None:
    document = {name: value for name, value in DOCUMENT.items() if name != key}
    with pytest.raises(ValueError, match=f"^{key}: Field required"):
        RunMetrics.from_json(document)
