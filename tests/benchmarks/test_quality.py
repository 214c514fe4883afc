"""The tables of what compression costs, on a tiny checkpoint: rows do what their names say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import benchmarks.quality.__main__ as quality
from benchmarks.quality.__main__ import Made, carry_on, main
from benchmarks.quality.variants import CHAIN, QUANTIZE, UNCHANGED, Stage, Table, with_calibration
from roots_compress.checkpoints.checkpoint import save_checkpoint
from roots_compress.configs.prune import PruneConfig
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.data.documents import Document, TextSplit
from roots_compress.stages.prune.stage import prune
from tests.tiny import TEXT, tiny_checkpoint, tiny_layer

LAYER = tiny_layer(intermediate_size=128)


def measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, *options: str, **shape: Any
) -> dict[str, Any]:
    """Return the rows that the command writes, for a model wide enough for multiples of 16."""
    save_checkpoint(tiny_checkpoint(hidden_size=128, layers=[LAYER] * 3, **shape), tmp_path / "ckpt")
    training = [tmp_path / f"train-{number}.txt" for number in range(3)]
    for name in ("held-out", "other", *(path.stem for path in training)):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(f"{name} {part} {TEXT}" for part in range(20)))
    texts = ["--data", *map(str, training), "--eval-data", str(tmp_path / "held-out.txt")]
    texts += ["--other-text", str(tmp_path / "other.txt"), "--windows", "2", "--block-size", "32"]
    out = tmp_path / "figures.json"
    command = [table, str(tmp_path / "ckpt"), *texts, "--threads", "1", "--out", str(out), *options]
    monkeypatch.setattr(sys, "argv", ["quality", *command])
    main()
    rows: dict[str, Any] = json.loads(out.read_text())["rows"]
    return rows


def test_pruning_removes_what_its_rows_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [
        "MLP 25%, activation, refitted",
        "MLP 50%, surgeon, refitted",
        "residual stream 12.5%, refitted",
        "residual stream 25%, refitted",
        "20% of the body, equal layers",
        "20% of the body, by layer",
    ]
    calibration = ("--calibration-windows", "8", "--own-windows", "0")
    rows = measured(tmp_path, monkeypatch, "prune", *calibration, "--only", *names)
    assert list(rows) == [UNCHANGED, *names]
    whole = rows[UNCHANGED]["parameters"]
    body = whole - 300 * 128
    notes = {name: rows[name]["notes"][0] for name in names}
    assert notes[names[0]]["intermediate_size_after"] == [96] * 3
    assert notes[names[1]]["intermediate_size_after"] == [64] * 3
    assert notes[names[2]]["hidden_size_after"] == 112
    assert notes[names[3]]["hidden_size_after"] == 96
    assert all(whole - rows[name]["parameters"] >= 0.2 * body for name in names[4:])
    assert all(each["calibration_tokens"] == 8 * 128 for each in notes.values())
    for figures in rows.values():
        assert set(figures["perplexity"]) == {"held-out text", "other text"}
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 20%")]
    assert len(lines) == 2


def test_of_the_text_only_so_many_documents_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = "MLP 25%, activation"
    tokens = []
    for documents in ("1", "2"):
        (tmp_path / documents).mkdir()
        options = ("--documents", documents, "--own-windows", "0", "--only", row)
        notes = measured(tmp_path / documents, monkeypatch, "prune", *options)[row]["notes"][0]
        tokens.append(notes["calibration_tokens"])
    assert tokens[1] == pytest.approx(2 * tokens[0], abs=128)


def test_an_unknown_row_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="2"):
        measured(tmp_path, monkeypatch, "prune", "--only", "MLP 26%")


def test_calibration_is_as_the_command_says() -> None:
    (stage,) = QUANTIZE.rows["int8"]
    (without,) = QUANTIZE.rows["int8, without own text"]
    assert with_calibration(stage, None, None) == stage
    assert with_calibration(stage, None, 0) == without
    assert with_calibration(without, None, 5) == without


def test_a_row_goes_on_from_the_stages_of_the_one_before() -> None:
    checkpoint = tiny_checkpoint(hidden_size=128, layers=[LAYER] * 2)
    text = TextSplit((Document.plain(TEXT * 20),), (), "")
    stages: list[Stage] = [
        PruneConfig(ratio=0.5, score="magnitude", refit=False, own_windows=0),
        QuantizeConfig(products="integer", compensate=False, own_windows=0),
    ]
    untouched = Made([], checkpoint, [])
    pruned = carry_on(untouched, stages[:1], text, seed=0)
    shared = carry_on(pruned, stages, text, seed=0)
    whole = carry_on(untouched, stages, text, seed=0)
    assert shared.notes[0] is pruned.notes[0]
    assert shared.notes == whole.notes
    for name, tensor in whole.checkpoint.model.state_dict().items():
        assert tensor.equal(shared.checkpoint.model.state_dict()[name])


def test_the_command_prunes_once_for_two_rows_that_begin_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = PruneConfig(ratio=0.5, score="magnitude", refit=False, own_windows=0)
    rows = {"cut": (cut,), "cut, int8": (cut, QuantizeConfig(compensate=False, own_windows=0))}
    pruned: list[PruneConfig] = []

    def counted(config: PruneConfig, *given: Any, **options: Any) -> Any:
        pruned.append(config)
        return prune(config, *given, **options)

    monkeypatch.setattr(quality, "CHAIN", Table(rows))
    monkeypatch.setattr(quality, "prune", counted)
    found = measured(tmp_path, monkeypatch, "chain", "--calibration-windows", "4")
    assert list(found) == [UNCHANGED, *rows]
    assert len(pruned) == 1
    assert len(found["cut, int8"]["notes"]) == 2
    assert found["cut, int8"]["bytes"] < found["cut"]["bytes"] < found[UNCHANGED]["bytes"]


def test_the_recovered_model_of_the_chain_is_made_once() -> None:
    rows = list(CHAIN.rows.values())
    assert rows[1][:1] == rows[0]
