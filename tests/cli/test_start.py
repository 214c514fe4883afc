"""`compress` and `init`, and the same from Python, on tiny models of every task."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import Result

from roots_compress import compress, evaluate, load
from roots_compress.advice import candidates
from roots_compress.checkpoints.checkpoint import Checkpoint, save_checkpoint
from roots_compress.configs.data import CalibrationConfig, DataConfig
from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.errors import InputError
from roots_compress.run.stages import read_metrics
from tests.cli.test_commands import assert_refused, roots_compress
from tests.encoders import encoder_tokenizer, tiny_encoder
from tests.families.sources import save_source, seq2seq, source_model
from tests.tiny import TEXT, tiny_checkpoint, tiny_layer, tiny_tokenizer

LITTLE: dict[str, Any] = {"calibration": CalibrationConfig(windows=4, block_size=16), "own_windows": 2}
INTEGERS: dict[str, Any] = {"products": "integer"}
"""Left open, the products and so the bytes of int8 would depend on the processor."""
MEASURED = ["--windows", "2", "--block-size", "16", "--threads", "1"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model for each task, each in a folder of its own, and texts with labels."""
    folder = tmp_path_factory.mktemp("models")
    save_checkpoint(tiny_checkpoint(max_position_embeddings=32), folder / "decoder")
    wide = tiny_layer(head_dim=16, intermediate_size=256)
    save_checkpoint(tiny_checkpoint(hidden_size=64, layers=[wide, wide]), folder / "wide")
    save_source(source_model("qwen2"), folder / "chat")
    chatting = tiny_tokenizer()
    chatting.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    chatting.save_pretrained(folder / "chat")
    save_source(source_model("qwen3_moe"), folder / "experts")
    save_source(seq2seq("t5", {}), folder / "t5")
    for kind in ("masked_lm", "classification", "embedding"):
        save_checkpoint(Checkpoint(tiny_encoder(kind, positions=32), encoder_tokenizer()), folder / kind)
    rows = [f"{line} {number},{number % 3}" for number in range(20) for line in ("a cat", "some dogs")]
    (folder / "labels.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    pairs = [{"source": f"say {number}", "target": f"Say {number}."} for number in range(60)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("decoder", ["task causal_lm", "int8", "max_perplexity_ratio: 1.05"]),
        ("chat", ["family qwen2", "chat template"]),
        ("experts", ["family qwen3_moe"]),
        ("t5", ["task seq2seq_lm", "max_target_perplexity_ratio"]),
        ("masked_lm", ["task masked_lm", "max_pseudo_perplexity_ratio"]),
        ("embedding", ["task sentence_embedding", "min_cosine"]),
        ("classification", ["task classification", "min_accuracy", "labels.csv"]),
    ],
)
def test_init_writes_a_recipe_that_suits_the_model(
    models: Path, text_file: Path, tmp_path: Path, model: str, words: list[str]
) -> None:
    own = {"classification": models / "labels.csv", "t5": models / "pairs.jsonl"}
    data: list[str | Path] = ["--data", own.get(model, text_file)]
    result = roots_compress("init", models / model, "-o", "own.yaml", *data, cwd=tmp_path)
    assert result.exit_code == 0, result.output
    written = (tmp_path / "own.yaml").read_text(encoding="utf-8")
    for word in words:
        assert word in written
    # What plan measures of a decoder is in test_forecast.py.
    probe = "--probe" if model in {"experts", "t5", "classification"} else "--no-probe"
    planned = roots_compress("plan", "own.yaml", probe, cwd=tmp_path)
    assert planned.exit_code == 0, planned.output


def test_init_chooses_the_chain_by_the_targets(models: Path, tmp_path: Path) -> None:
    size = sum(file.stat().st_size for file in (models / "wide").glob("*.safetensors"))
    targets = ["--target", f"{size // 5} B", "--target", "at most 10% worse"]
    result = roots_compress("init", models / "wide", *targets, cwd=tmp_path)
    assert result.exit_code == 0, result.output
    written = (tmp_path / "recipe.yaml").read_text(encoding="utf-8")
    assert "scheme: int4" in written
    assert "max_perplexity_ratio: 1.1" in written
    assert f"max_bytes: {size // 5}" in written
    assert "misses a target" not in written
    result = roots_compress("init", models / "wide", "--target", "1kB", "-o", "b.yaml", cwd=tmp_path)
    assert "misses a target" in (tmp_path / "b.yaml").read_text(encoding="utf-8")


def test_a_classifier_without_texts_is_told_what_its_recipe_needs(models: Path, tmp_path: Path) -> None:
    result = roots_compress("init", models / "classification", cwd=tmp_path)
    assert result.exit_code == 0, result.output
    assert "data.train" in result.output
    assert roots_compress("validate", "recipe.yaml", cwd=tmp_path).exit_code == 0


def test_init_refuses_what_it_does_not_understand(models: Path, tmp_path: Path) -> None:
    refused = roots_compress("init", models / "decoder", "--target", "tiny", cwd=tmp_path)
    assert_refused(refused, "tiny", "100 MB", "3x faster", "at most 5% worse")
    assert_refused(roots_compress("init", "nowhere", cwd=tmp_path), "nowhere", "does not exist")
    assert_refused(roots_compress("init", "--target", "1 MB", cwd=tmp_path), "--target", "init CKPT")
    assert list(tmp_path.iterdir()) == []


def little_quantize(**settings: Any) -> QuantizeConfig:
    products = INTEGERS if settings["scheme"] == "int8" else {}
    return QuantizeConfig(**LITTLE, **products, **settings)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates on little text, and no timing of products."""
    monkeypatch.setattr(candidates, "QuantizeConfig", little_quantize)
    monkeypatch.setattr(candidates, "LISTED", (("int8",), ("int4",)))


@pytest.fixture(scope="module")
def compressed(models: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decoder compressed to bounds that int8 keeps; the folder around `runs/`."""
    folder = tmp_path_factory.mktemp("compressed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "QuantizeConfig", little_quantize)
        patch.setattr(candidates, "LISTED", (("int8",), ("int4",)))
        result = bounded(models, text_file, folder, "--max-mb", "0.1", "--max-loss", "50%")
    assert result.exit_code == 0, result.output
    assert re.search(r"1\. int8, about 0\.0\d+ MB, about \d", result.output)
    # Numbers are those of the list, whatever is made for a candidate.
    assert re.findall(r"candidate \d.*?(?= ─)", result.stderr) == [
        "candidate 1 of 2: int8; made first: as it is",
        "candidate 1 of 2: int8",
    ]
    assert "Chosen: int8, which keeps them all." in result.stdout
    assert "Not tried, because more loss is expected of them: int4." in result.stdout
    return folder


def bounded(models: Path, text: Path, folder: Path, *bounds: str) -> Result:
    return roots_compress("compress", models / "decoder", *bounds, "--data", text, *MEASURED, cwd=folder)


def test_compress_leaves_a_run_and_the_recipe_that_repeats_it(compressed: Path) -> None:
    run = compressed / "runs" / "decoder"
    metrics = read_metrics(run)
    assert [stage.name for stage in metrics.stages] == ["baseline", "int8"]
    assert {gate.gate: gate.passed for gate in metrics.gates} == {
        "max_bytes": True,
        "max_perplexity_ratio": True,
    }
    said = roots_compress("validate", run / "recipe.yaml", cwd=compressed)
    assert said.exit_code == 0, said.output
    assert "recipe.yaml is valid: quantize" in said.stdout
    assert "products: integer" in (run / "recipe.yaml").read_text(encoding="utf-8")


def test_what_nothing_reaches_ends_with_code_3_and_the_nearest(
    models: Path, text_file: Path, compressed: Path, tmp_path: Path
) -> None:
    shutil.copytree(compressed / "runs", tmp_path / "runs")
    result = bounded(models, text_file, tmp_path, "--max-mb", "0.02", "--max-loss", "50%")
    assert result.exit_code == 3, result.output
    assert "No candidate keeps all bounds. Nearest: int4" in result.stdout
    assert re.search(r"Left out: \w+ \(about 0\.0\d+ MB\)", result.stdout)
    assert re.search(r"misses: 0\.0\d+ MB, \d\.\d\d times the 0\.020 MB allowed", result.stdout)
    assert "max_bytes is" in result.stderr
    assert "max_bytes" not in result.stdout, "what is missed is told in the terms of the bounds, once"
    assert "bounds that can be kept, or more time with --max-minutes." in " ".join(result.stderr.split())


def test_what_a_small_graph_takes_besides_its_weights_counts(
    models: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LITTLE, "calibration", CalibrationConfig(windows=24, block_size=16))
    data: tuple[str | Path, ...] = ("--data", text_file, *MEASURED)
    result = roots_compress("compress", models / "wide", "--max-mb", "0.15", *data, cwd=tmp_path)
    assert result.exit_code == 0, result.output
    assert "left out: int8 (about 0.1" in result.stderr
    assert 130_000 < read_metrics(tmp_path / "runs" / "wide").stages[-1].metrics.bytes <= 150_000


def test_a_model_that_keeps_the_bounds_stays_as_it_is(
    models: Path, text_file: Path, compressed: Path, tmp_path: Path
) -> None:
    shutil.copytree(compressed / "runs", tmp_path / "runs")
    (tmp_path / "runs" / "decoder" / "search.json").unlink()  # so that no other candidate was tried
    result = bounded(models, text_file, tmp_path, "--max-mb", "1")
    assert result.exit_code == 0, result.output
    assert "Chosen: as it is, which keeps them all: nothing was compressed." in result.stdout
    assert re.search(
        r"Ask for less than 0\.\d+ MB, or for more speed, to have it compressed\.", result.stdout
    )
    assert f"Result: {Path('runs/decoder/00-baseline')}\n" in result.stderr
    assert "Not tried, because more loss is expected of them: int8, int4." in result.stdout
    assert [stage.name for stage in read_metrics(tmp_path / "runs" / "decoder").stages] == ["baseline"]
    # What other bounds had made is still there.
    assert re.search(r"In all it took .* of it the stages of other candidates in shelf/", result.stdout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--max-mb", "--min-speedup", "--max-loss"]),
        (["--max-mb", "0"], ["--max-mb", "is 0"]),
        (["--min-speedup", "nan"], ["--min-speedup"]),
        (["--max-loss", "5"], ["--max-loss 5%"]),
        (["--max-mb", "1", "--records", "labels"], ["labels"]),
    ],
)
def test_bounds_that_cannot_be_are_refused_before_anything_is_written(
    models: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    assert_refused(roots_compress("compress", models / "decoder", *arguments, cwd=tmp_path), *words)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_a_quantized_and_another_model_are_refused(models: Path, compressed: Path) -> None:
    run = compressed / "runs" / "decoder"
    bound = ["--max-mb", "1"]
    assert_refused(roots_compress("compress", "nowhere", *bound, cwd=compressed), "nowhere")
    quantized = run / "01-quantize" / "checkpoint"
    verbs: list[list[str | Path]] = [["compress", quantized, *bound], ["init", quantized, "-o", "q.yaml"]]
    for verb in verbs:
        assert_refused(roots_compress(*verb, cwd=compressed), "quantized already", "before quantization")
    other = roots_compress("compress", models / "chat", *bound, "--run", run, cwd=compressed)
    assert_refused(other, "in use by a run that began with", "--fresh")


def test_python_compresses_loads_and_evaluates(models: Path, text_file: Path, compressed: Path) -> None:
    data = {"train": [str(text_file)]}
    measured = {"windows": 2, "block_size": 16, "threads": 1}
    with chdir(compressed):
        result = compress(models / "decoder", max_mb=0.1, max_loss=0.5, data=data, evaluation=measured)
    assert result.kept
    assert any(each.startswith("Chosen: int8") for each in result.explanation)
    figures = evaluate(result.graph, data=data, evaluation=measured)
    perplexity = result.metrics.stages[-1].metrics.quality["perplexity"]
    assert figures.quality["perplexity"] == pytest.approx(perplexity)
    for place in (result.graph, result.checkpoint):
        model = load(place, threads=1)
        text = model.generate("The quick", max_new_tokens=4)
        assert "".join(model.stream("The quick", max_new_tokens=4)) == text
        with pytest.raises(InputError, match="generate"):
            model.encode(["a text"])
    with pytest.raises(InputError, match="max_mb"):
        compress(models / "decoder")


def test_python_carries_out_a_chain(models: Path, text_file: Path, tmp_path: Path) -> None:
    with chdir(tmp_path):
        result = compress(
            models / "decoder",
            max_mb=0.001,
            stages=[QuantizeConfig(scheme="fp16")],
            data=DataConfig(train=(text_file,)),
            evaluation=EvaluationConfig(windows=2, block_size=16, contexts=(8,), repeats=1, threads=1),
        )
    assert not result.kept
    assert "max_bytes is" in result.explanation[-1]
    assert [stage.kind for stage in result.metrics.stages] == ["baseline", "quantize"]


def test_python_encodes_texts(models: Path) -> None:
    texts = TEXT.splitlines()
    rows = load(models / "embedding").encode(texts)
    assert rows.shape == (len(texts), 32)
    alone = load(models / "embedding").encode(texts[:1])
    assert alone[0] == pytest.approx(rows[0], abs=1e-5)
    assert load(models / "classification").encode(texts).shape == (len(texts), 3)
    assert load(models / "embedding").encode(text for text in texts).shape == rows.shape
    with pytest.raises(InputError, match="encode"):
        load(models / "masked_lm").generate("a text")


def test_python_refuses_what_is_out_of_range(models: Path) -> None:
    model, odd = load(models / "decoder", threads=1), cast(Any, None)
    for threads in (0, -1, True, cast(Any, "2")):
        with pytest.raises(InputError, match="threads: is"):
            load(models / "decoder", threads=threads)
    with pytest.raises(InputError, match="None is no text"):
        model.generate(odd)
    with pytest.raises(InputError, match="seed cannot be -1"):
        model.generate("a text", temperature=1.0, seed=-1)
    with pytest.raises(InputError, match="one text was given"):
        load(models / "embedding").encode("a text")
