"""The peers' benchmark, as far as it needs no peer: workers on a tiny graph, turns, targets, preparation."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import load_file

from benchmarks.peers import __main__ as command
from benchmarks.peers.checkpoints import Tokens, artifact_bytes, hugging_face_directory, opened_file
from benchmarks.peers.engines import BASELINE, OUR_ENGINES, PEERS, our_engine
from benchmarks.peers.environments import PeerError
from benchmarks.peers.measuring import Launch, judge, needed_options, time_engines
from benchmarks.peers.report import markdown, show_refused, show_rows, show_targets
from benchmarks.peers.targets import judge_targets
from roots_compress.checkpoints.checkpoint import save_checkpoint
from roots_compress.configs.export import ExportConfig
from roots_compress.data.windows import EvaluationWindows
from roots_compress.export.exporter import export_checkpoint
from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.runtime.onnx.session import NO_FLASH_ATTENTION, session_settings
from roots_compress.system.machine import own_instruction_set
from roots_compress.tasks.figures.perplexity import perplexity
from tests.tiny import tiny_checkpoint, tiny_layer, tiny_tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("peers") / "graph"
    export_checkpoint(tiny_checkpoint(), target, ExportConfig())
    return target


def launch_of(folder: Path, name: str, log: Path) -> Launch:
    engine = our_engine(name, folder, 32)
    return Launch(engine, Path(sys.executable), opened_file(engine, folder), 1, 64, log / f"{name}.log")


def some_tokens() -> Tokens:
    ids = tiny_tokens(batch=3, tokens=24).tolist()
    return Tokens(windows=ids[:2], greedy_prompt=ids[2][:5], timed=ids[2], text_sha256="", bos=False)


def test_a_worker_scores_as_the_project_does(folder: Path, tmp_path: Path) -> None:
    tokens = some_tokens()
    launch = launch_of(folder, "ours", tmp_path)
    found = judge(launch, launch, tokens, context=8, decode=2)
    windows = EvaluationWindows(
        input_ids=tiny_tokens(batch=3, tokens=24)[:2].numpy(),
        bos=False,
        text_bytes=1,
        text_sha256="",
        tokenizer_sha256="",
    )
    wanted = perplexity(OnnxEngine.load(folder, threads=1, provider="cpu"), windows)
    assert found["nll_nats"] == pytest.approx(wanted.nll_nats, rel=1e-6)
    assert len(found["greedy_tokens"]) == 32
    assert found["session_options"] == {
        **session_settings(own_instruction_set(), bounded=True, spinning=True),
        NO_FLASH_ATTENTION: "1",
    }
    assert found["peak_rss_bytes"] > artifact_bytes(launch.engine, folder) > 0


def test_engines_take_turns_and_one_that_fails_leaves_the_others(folder: Path, tmp_path: Path) -> None:
    broken = launch_of(folder, "broken", tmp_path)
    broken = Launch(broken.engine, broken.python, tmp_path / "absent.onnx", 1, 64, broken.log)
    launches = [launch_of(folder, "one", tmp_path), broken, launch_of(folder, "two", tmp_path)]
    steps: list[str] = []
    rates, failed = time_engines(
        launches,
        some_tokens().timed,
        contexts=[4, 8],
        prefill_contexts=[4],
        decode=2,
        repeats=2,
        progress=steps.append,
    )
    assert list(rates) == ["one", "two"]
    assert "InputError" in failed["broken"]
    for of in rates.values():
        assert [rate.context for rate in of["prefill"]] == [4]
        assert [rate.context for rate in of["decode"]] == [4, 8]
        assert all(0 < rate.low <= rate.median <= rate.high for each in of.values() for rate in each)
    assert len(steps) == 6


def row(bits: int, speed: float, quality: float, *, ours: bool = False, size: int = 100) -> dict[str, Any]:
    figures = dict.fromkeys((128, 512, 2048), speed)
    return {
        "session_options": {"session.force_spinning_stop": "1"} if ours else {},
        "peak_rss_bytes": 250 * 10**6,
        "greedy_tokens": [3, 1, 4],
        "bits": bits,
        "ours": ours,
        "perplexity": quality,
        "bytes": size * 10**6,
        "decode": figures,
        "prefill": figures,
    }


def test_targets_compare_with_the_best_peer_of_the_same_quality() -> None:
    rows = {
        BASELINE: row(32, 10.0, 20.0),
        "good peer": row(8, 40.0, 20.1),
        "fast peer that ruins the model": row(8, 90.0, 40.0),
        "llama.cpp Q4_K_M": row(4, 50.0, 21.0),
        "ours int8": row(8, 60.0, 20.09, ours=True, size=150),
    }
    targets = {(target.figure, target.against): target for target in judge_targets(rows, BASELINE)}
    decode = next(target for (figure, _), target in targets.items() if figure == "int8 decode at 512")
    assert decode.reached == pytest.approx(1.5)
    assert decode.met is True
    assert targets["int8 perplexity", "fp32"].met is True
    assert targets["int8 MB", ""].met is False
    assert targets["int8 decode at 2048 / at 128", "itself"].reached == 1.0
    assert all(target.met is None for (figure, _), target in targets.items() if figure.startswith("int4"))


def printed(rows: dict[str, dict[str, Any]]) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=200)
    show_rows(console, rows, BASELINE)
    show_targets(console, judge_targets(rows, BASELINE))
    show_refused(console, {"a peer": "its worker ended with code 139: " + "no reason was given " * 9})
    return out.getvalue().splitlines()


@pytest.mark.parametrize("contexts", [[128], [128, 512, 2048], [64, 128, 256, 512, 1024, 2048, 4096, 8192]])
def test_what_is_printed_fits_80_columns(contexts: list[int]) -> None:
    names = [BASELINE, *(engine.name for engine in (*PEERS, *OUR_ENGINES)), "ours " + "of_a_long_name" * 4]
    rows = {name: row(8, 12345.678, 125.8765, ours=name.startswith("ours")) for name in names}
    for each in rows.values():
        each["decode"] = dict.fromkeys(contexts, 12345.678)
        each["prefill"] = dict.fromkeys(contexts[:2], 12345.678)
    lines = printed(rows)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "…" not in text
    assert text.count("12345.7") == len(rows) * (len(contexts) + len(contexts[:2]))
    for name in names[:-1]:
        assert any(line.strip().startswith(name) for line in lines), name


def test_every_row_says_which_session_options_were_set() -> None:
    rows = {BASELINE: row(32, 10.0, 20.0), "ours int8": row(8, 60.0, 20.1, ours=True)}
    text = "\n".join(printed(rows))
    assert re.search(rf"{BASELINE}:\n +defaults", text)
    assert re.search(r"ours int8:\n +session.force_spinning_stop=1", text)
    table = markdown(rows, BASELINE, judge_targets(rows, BASELINE)).splitlines()
    assert table[0].startswith("| engine | MB | peak MB | perplexity |")
    assert table[0].endswith("| decode at 2,048 | session options |")
    assert table[1] == "|---" * table[0].count(" | ") + "|---|"
    (ours,) = (line for line in table if line.startswith("| ours int8 |"))
    assert "| 60.0 (6.00) |" in ours
    assert ours.endswith("| session.force_spinning_stop=1 |")
    assert any(line.startswith("| int8 decode at 512 | best 8-bit peer") for line in table)


@pytest.mark.parametrize(
    ("instructions", "exact"), [("x86_64+avx2", True), ("x86_64+avx2+avx512f+avx512_vnni", False)]
)
def test_peers_sums_are_made_exact_where_ours_are(instructions: str, exact: bool) -> None:
    assert needed_options(instructions) == ({"session.x64quantprecision": "1"} if exact else {})


def test_peers_get_the_weights_of_the_first_family_that_fits(tmp_path: Path) -> None:
    save_checkpoint(tiny_checkpoint(), tmp_path / "source")
    written = hugging_face_directory(tmp_path / "source", tmp_path / "written")
    config = json.loads((written / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "llama"
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]  # transformers 4 reads this one.
    assert "model.embed_tokens.weight" in load_file(written / "model.safetensors")


def test_a_model_no_peer_can_express_is_refused_with_its_reason(tmp_path: Path) -> None:
    layers = [tiny_layer(), tiny_layer(intermediate_size=24)]
    save_checkpoint(tiny_checkpoint(layers=layers), tmp_path / "source")
    with pytest.raises(PeerError, match="layers differ"):
        hugging_face_directory(tmp_path / "source", tmp_path / "written")
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nothing"], "no engine's name holds nothing"),
        (["--ours", "int8"], "is not NAME=FOLDER"),
        (["--repeats", "0"], "--repeats must be at least 1"),
        (["--contexts", "4096"], "none of the contexts"),
    ],
)
def test_bad_input_ends_before_anything_is_prepared(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tiny_checkpoint(), tmp_path / "source")
    (tmp_path / "text.txt").write_text("some text", encoding="utf-8")
    places = ["--environments", str(tmp_path / "environments"), "--work", str(tmp_path / "work")]
    code = command.main([str(tmp_path / "source"), "--text", str(tmp_path / "text.txt"), *places, *arguments])
    assert code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "work").exists()


def test_a_named_folder_takes_the_place_of_what_would_be_built(folder: Path) -> None:
    engines = {
        engine.name: engine for engine in command.choose_engines([], [f"int8={folder}", f"new={folder}"])
    }
    assert engines["ours int8"].artifact == str(folder.resolve())
    assert engines["ours new"].bits == 32
    assert {engine.name for engine in OUR_ENGINES} < set(engines)
