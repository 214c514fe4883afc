"""Requests that cannot be carried out: exit code 2, a message with place, cause and remedy, nothing written.

`{models}` and `{texts}` in a command or a recipe stand for the folders of the two fixtures.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from roots_compress.checkpoints.checkpoint import Checkpoint, save_checkpoint
from roots_compress.cli.app import app
from roots_compress.configs.data import TokenizerConfig
from roots_compress.data.documents import Document
from roots_compress.data.tokenizers import train_tokenizer
from roots_compress.run.marker import MARKER_NAME, marker_text
from tests.tiny import TEXT, VOCAB_SIZE, tiny_checkpoint, tiny_model, tiny_tokenizer
from tests.verbs import verbs

WEIGHTS = "model.safetensors"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 100\n"
RECIPE = (
    "name: t\n"
    "model: '{models}/good'\n"
    "data: {{train: ['{texts}/prose']}}\n"
    "evaluation: {{block_size: 32, windows: 4, contexts: [16], decode_tokens: 2, threads: 1}}\n"
)
ON_TEXT = "--data {texts}/prose --block-size 32 --windows 4 --threads 1"
DISTILL = "distill --teacher {models}/good --train-block-size 32 --steps 1"


def cut_short(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def as_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def other_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "lama"}))


def not_a_number(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": cut_short,
    "empty-weights": lambda folder: (folder / WEIGHTS).write_bytes(b""),
    "lfs": lambda folder: (folder / WEIGHTS).write_bytes(LFS_POINTER),
    "pickle": as_pickle,
    "disguised-pickle": lambda folder: (folder / WEIGHTS).write_bytes(b"\x80\x04" + bytes(30)),
    "unknown-type": other_type,
    "no-tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "bad-tokenizer": lambda folder: (folder / "tokenizer.json").write_text("{}"),
    "bad-config": lambda folder: (folder / "config.json").write_text("{"),
    "nan": not_a_number,
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good checkpoint, the same with each damage, and some that only do not fit it."""
    folder = tmp_path_factory.mktemp("models")
    save_checkpoint(tiny_checkpoint(), folder / "good")
    for name, damage in DAMAGES.items():
        shutil.copytree(folder / "good", folder / name)
        damage(folder / name)
    other = train_tokenizer(
        [Document.plain(TEXT[::-1])], TokenizerConfig(vocab_size=VOCAB_SIZE, min_frequency=1)
    )
    save_checkpoint(Checkpoint(tiny_model(), other), folder / "other-tokens")
    save_checkpoint(Checkpoint(tiny_model(vocab_size=320), tiny_tokenizer()), folder / "larger-vocabulary")
    save_checkpoint(Checkpoint(tiny_model(vocab_size=280), tiny_tokenizer()), folder / "few-rows")
    save_checkpoint(tiny_checkpoint(max_position_embeddings=16), folder / "short-context")
    config = json.loads((folder / "good" / "config.json").read_text())
    quantization = {"group_size": 16, "formats": {"model.embed_tokens": "w8"}}
    shutil.copytree(folder / "good", folder / "quantized")
    (folder / "quantized" / "config.json").write_text(json.dumps({**config, "quantization": quantization}))
    (folder / "model.gguf").write_bytes(b"GGUF" + bytes(40))
    return folder


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "prose").mkdir()
    for part in range(3):
        lines = [f"Sentence {i} says that {part} times {i} is {part * i}." for i in range(80)]
        (folder / "prose" / f"{part}.txt").write_text("\n".join(lines))
    (folder / "empty.txt").write_text("")
    (folder / "blank.txt").write_text(" \n\n")
    (folder / "short.txt").write_text("Too few words.")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "table.csv").write_text("title,body\na,b\n")
    (folder / "archive.zip").write_bytes(b"PK")
    (folder / "void").mkdir()
    return folder


@pytest.fixture
def refused(
    models: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    """Run a command in an empty folder, and return what it says once it has failed as it should."""
    monkeypatch.chdir(tmp_path)

    def run(command: str) -> str:
        before = {*tmp_path.rglob("*"), *models.rglob("*"), *texts.rglob("*")}
        arguments = [word.format(models=models, texts=texts) for word in command.split()]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2, (result.output, result.exception)
        assert isinstance(result.exception, SystemExit)
        assert {*tmp_path.rglob("*"), *models.rglob("*"), *texts.rglob("*")} == before
        return " ".join(result.stderr.replace("│", " ").split())

    return run


def assert_says(said: str, words: str) -> None:
    for part in words.split(" ... "):
        assert part in said


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ("evalution: {{}}", "r.yaml:5: evalution: unknown key ... 'evaluation'"),
        ("stages:\n- kind: prune\n  ratoi: 0.5", "r.yaml:7: stages[0].ratoi ... 'ratio'"),
        ("stages:\n- kind: prun", "r.yaml:6: stages[0].kind ... 'prune'"),
        ("seed: many", "r.yaml:5: seed: must be a whole number, not text 'many'"),
        ("seed: -1", "r.yaml:5: seed: must be at least 0"),
        ("stages:\n- kind: prune\n  ratio: 1.5", "r.yaml:7: stages[0].ratio: must be below 1"),
        ("stages:\n- kind: quantize\n- kind: prune", "r.yaml:7 ... prune ... cannot come after ... move it"),
        ("stages:\n- kind: distill\n  student: smal", "r.yaml:7: stages[0].student ... 'small'"),
        ("device: cuda", "r.yaml:5: device: CUDA is asked for ... device cpu"),
        (
            "stages:\n- kind: distill\n  training: {{block_size: 129}}",
            "r.yaml:7: stages[0].training.block_size: is 129 tokens ... 128 ... Lower it",
        ),
        (
            "stages:\n- kind: prune\n  recovery: {{training: {{block_size: 129}}}}",
            "stages[0].recovery.training.block_size: is 129 tokens ... 128",
        ),
        (
            "stages:\n- kind: prune\n  ratio: 0.05",
            "r.yaml:7: stages[0].ratio: ratio 0.05 leaves no legal width ... nearest legal ratio is 0.3333",
        ),
        (
            "stages:\n- kind: prune\n- kind: quantize\n  cache: int8",
            "r.yaml:8: stages[1].cache: ... cannot be cached in int8 ... cache: float",
        ),
    ],
)
def test_a_recipe_at_fault(
    added: str, words: str, refused: Callable[[str], str], models: Path, texts: Path, tmp_path: Path
) -> None:
    if "CUDA" in words and torch.cuda.is_available():
        pytest.skip("there is CUDA here")
    (tmp_path / "r.yaml").write_text((RECIPE + added + "\n").format(models=models, texts=texts))
    assert_says(refused("run r.yaml"), words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("block_size: 32", "block_size: 129", "r.yaml:4: evaluation.block_size: is 129 tokens ... 128"),
        ("decode_tokens: 2", "decode_tokens: 128", "r.yaml:4: evaluation.decode_tokens: 128 ... no room"),
        ("{texts}/prose", "{texts}/absent", "r.yaml:3: data.train[0] ... does not exist"),
        ("{models}/good", "{models}/absent", "r.yaml:2: model ... does not exist"),
        ("train: [", "eval: ['{texts}/prose/1.txt'], train: [", "1.txt: the path is named twice"),
        ("{texts}/prose", "{texts}/table.csv", "no column 'text' ... 'title', 'body' ... data.text_column"),
    ],
)
def test_a_recipe_changed_for_the_worse(
    old: str,
    new: str,
    words: str,
    refused: Callable[[str], str],
    models: Path,
    texts: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE.replace(old, new).format(models=models, texts=texts))
    assert_says(refused("run r.yaml"), words)


@pytest.mark.parametrize(
    ("stage", "key"),
    [
        ("kind: distill\n  loss: {{top_k: 3500}}", "r.yaml:11: stages[1].loss.top_k"),
        (
            "kind: prune\n  recovery: {{loss: {{top_k: 3500}}, training: {{block_size: 32}}}}",
            "r.yaml:11: stages[1].recovery.loss.top_k",
        ),
    ],
)
def test_a_vocabulary_that_came_out_smaller_than_asked_for(
    stage: str, key: str, refused: Callable[[str], str], texts: Path, tmp_path: Path
) -> None:
    text = RECIPE.replace("model: '{models}/good'\n", "") + (
        "stages:\n"
        "- kind: train\n"
        "  architecture: {{hidden_size: 32, num_layers: 1, head_dim: 16}}\n"
        "  tokenizer: {{vocab_size: 4000}}\n"
        "  training: {{block_size: 32, steps: 1}}\n"
        "- name: later\n"
        f"  {stage}\n"
    )
    (tmp_path / "r.yaml").write_text(text.format(texts=texts))
    assert_says(refused("run r.yaml"), f"error: {key}: 00 baseline failed: is 3500, and the ... vocabulary")


OPTION_FAULTS = [
    ("schema recipe.yaml", "unexpected extra argument"),
    ("prune {models}/good --ratio 1.5", "error: --ratio: must be below 1"),
    ("data prepare --out out", "error: SRC: is required"),
    ("data prepare absent --out out", "error: SRC: ... does not exist"),
    ("data prepare {texts}/prose --out out --near-threshold 2", "error: --near-threshold: must be at most 1"),
    ("data prepare {texts}/prose --out out --set repetition.max_line=1", "did you mean 'max_lines'"),
    ("data prepare {texts}/void --out out", "void: ... has no data files"),
    ("prune {models}/good --ratio 0", "above 0"),
    ("prune {models}/good --block-size 32 --head-ratio 0.9", "nearest legal head_ratio is 0.5000"),
    (
        "prune {models}/good --block-size 32 --residual-ratio 0.1",
        "nearest legal residual_ratio is 0.5000",
    ),
    (
        "prune {models}/good --block-size 32 --target-parameters 0.0001",
        "--target-parameters: the target leaves no legal shape ... nearest ... of the parameters",
    ),
    ("prune {models}/good --recover 0", "error: --recover: must be at least 1"),
    (f"{DISTILL} --lr nan", "--lr: must be a finite number"),
    (f"{DISTILL} --steps 0", "--steps: must be at least 1"),
    (f"{DISTILL} --student smal", "'smal' ... 'small'"),
    (f"{DISTILL} --lr fast", "--lr"),
    ("quantize {models}/good --seed -1", "--seed: must be at least 0"),
    ("quantize {models}/good --threads 0", "--threads: must be at least 1"),
    ("quantize {models}/good --threads 99999", "--threads: must be at most 1024"),
    ("quantize {models}/good --group-size 7", "--group-size: must be 'auto', 16, 32, 64 or 128"),
    ("quantize {models}/good --int4 --weights-only", "--weights-only: goes with --int8, not with --int4"),
    ("quantize {models}/good --fp16 --integer-products", "--integer-products: goes with --int8"),
    (
        "quantize {models}/good --fp16 --serve-on amx",
        "--serve-on: goes with --int8 or --int4, not",
    ),
    ("quantize {models}/good --int4 --float-cache --workload 9:9", "--workload ... --float-cache"),
    ("quantize {models}/good --weights-only --integer-products", "is set already, by --weights-only"),
    ("quantize {models}/good --weights-only --int8-cache --serve-on arm", "--serve-on ... --int8-cache"),
    (
        "quantize {models}/good --integer-products --float-cache --workload 9:9",
        "--workload ... --float-cache",
    ),
    ("quantize {models}/good --workload 512", "--workload: '512' is not of the form READ:WRITE"),
    ("quantize {models}/good --workload=-1:3", "--workload: '-1:3' is not of the form READ:WRITE"),
    ("quantize {models}/good --workload 0:3", "--workload (read): must be at least 1, not 0"),
    ("quantize {models}/good --serve-on avx3", "--serve-on"),
    ("quantize {models}/good --device tpu", "--device ... 'tpu'"),
    ("quantize {models}/good --int9", "--int9"),
    ("quantize {models}/good --block-size 512", "--block-size: is 512 tokens ... 128"),
    ("train {models}/good --layers 3", "--layers: would have no effect"),
    ("tune {models}/good --field answer=a", "--field"),
    ("tune {models}/good --field prompt=a --field prompt=b", "--field: prompt is given twice"),
    ("sparsify {models}/good --blocks 0", "--blocks: must be at least 1, not 0"),
    ("generate {models}/good -p x --threads 99999", "--threads"),
    ("bench {models}/good --context 0", "--context"),
    (f"{DISTILL} --cache x", "--cache: needs --top-k"),
    (f"{DISTILL} {ON_TEXT} --top-k 301", "--top-k: is 301, and the teacher's vocabulary has 300 tokens"),
    ("prune {models}/good --set calibration.windows=0", "--set calibration.windows: must be at least 1"),
    (
        "prune {models}/good --ratio 2 --seed -1 --threads 0",
        "--threads: must be at least 1 ... --seed: must be at least 0 ... --ratio: must be below 1",
    ),
    ("doctor extra", "unexpected extra argument"),
]


@pytest.mark.parametrize(("options", "words"), OPTION_FAULTS)
def test_an_option_at_fault(options: str, words: str, refused: Callable[[str], str]) -> None:
    assert_says(refused(options), words)


MODEL_FAULTS = [
    ("truncated", "model.safetensors ... bytes ... copy or download it again"),
    ("empty-weights", "model.safetensors: has 0 bytes"),
    ("lfs", "git-LFS pointer ... git lfs pull"),
    ("pickle", "only as pickle (pytorch_model.bin) ... never read"),
    ("disguised-pickle", "is a Python pickle, not safetensors"),
    ("unknown-type", "config.json: model_type 'lama' is not supported ... 'llama'"),
    ("no-tokenizer", "has no tokenizer ... Copy"),
    ("bad-tokenizer", "tokenizer that cannot be read ... Copy"),
    ("bad-config", "config.json: is not valid JSON"),
    ("nan", "'model.norm.weight' holds NaN"),
    ("few-rows", "token number 299, but the embedding has 280 rows"),
    ("quantized", "quantized ... before quantization"),
    ("model.gguf", "GGUF of version 0"),
    ("absent", "does not exist"),
]


@pytest.mark.parametrize(("model", "words"), MODEL_FAULTS)
def test_a_model_at_fault(model: str, words: str, refused: Callable[[str], str]) -> None:
    assert_says(refused(f"quantize {{models}}/{model} {ON_TEXT}"), words)


@pytest.mark.parametrize(
    ("student", "words"),
    [
        *((name, words) for name, words in MODEL_FAULTS if name not in ("nan", "absent", "few-rows")),
        ("other-tokens", "the student's tokenizer ... is not the teacher's"),
        ("larger-vocabulary/config.json", "vocabulary has 320 entries, the teacher's 300"),
        ("short-context", "--block-size: is 32 tokens ... 16"),
        ("absent", "no preset or path 'absent'"),
        (".", "is a directory without config.json ... preset (tiny, small, medium) or a ROOTS config file"),
    ],
)
def test_a_student_at_fault(student: str, words: str, refused: Callable[[str], str]) -> None:
    said = refused(f"{DISTILL} --student {{models}}/{student} {ON_TEXT}")
    assert_says(said, words)
    assert "error: --student: " in said or student == "short-context"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--data {texts}/empty.txt", "empty.txt: there is no text"),
        ("--data {texts}/blank.txt", "blank.txt: there is no text"),
        ("--data {texts}/void", "void: there is no text"),
        (
            "--data {texts}/short.txt --eval-data {texts}/prose",
            "--data ... fewer than one window of 128 ... --set calibration.block_size",
        ),
        ("--data {texts}/prose --eval-data {texts}/short.txt", "--eval-data ... fewer than one window of 32"),
        ("--data {texts}/latin.txt", "latin.txt:1: byte 0xe9 is not UTF-8"),
        ("--data {texts}/table.csv --text-column text", "no column 'text' ... --text-column"),
        ("--data {texts}/archive.zip", "'.zip' ... .txt"),
        ("--data {texts}/prose --eval-data {texts}/prose/0.txt", "0.txt: the path is named twice"),
        ("--data absent.txt", "does not exist"),
    ],
)
def test_a_text_at_fault(options: str, words: str, refused: Callable[[str], str]) -> None:
    assert_says(refused(f"quantize {{models}}/good --block-size 32 {options}"), words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            "--data {texts}/short.txt --eval-data {texts}/prose",
            "--data ... fewer than one window ... --train-block-size",
        ),
        ("--data {texts}/prose --eval-data {texts}/short.txt", "--eval-data ... fewer than one window"),
    ],
)
def test_a_text_too_short_for_a_model_from_scratch_is_found_before_training(
    options: str, words: str, refused: Callable[[str], str]
) -> None:
    said = refused(f"train --vocab-size 300 --hidden-size 32 --layers 1 --block-size 32 {options}")
    assert_says(said, words)
    assert "loss" not in said


PLACE_FAULTS = [
    (f"quantize {{models}}/good {ON_TEXT} --run {{texts}}/prose", "output folder in use ... --run"),
    (f"quantize {{models}}/good {ON_TEXT} --run {{texts}}/prose --fresh", "--fresh never does"),
    (f"quantize {{models}}/good {ON_TEXT} --run {{texts}}/short.txt", "is a file"),
    (f"quantize {{models}}/good {ON_TEXT} --run {{texts}}/short.txt/run", "lies under one"),
    ("import {models}/good --out {models}/good", "output exists already"),
    ("export {models}/good --out {texts}/short.txt/graph", "output cannot be made"),
    ("import {models}/good --out " + "x" * 300, "File name too long"),
    (f"quantize {{models}}/good {ON_TEXT} --run " + "x" * 300, "File name too long"),
    ("quantize " + "x" * 300, "File name too long"),
    ("export {models}/lfs --out graph", "git-LFS pointer"),
    ("import {models}/nan --out model", "NaN"),
    ("eval absent", "PATH: ... absent' does not exist"),
    ("eval {models}/good --limit 3", "--limit: ... no task is named"),
    (
        "compress {models}/good --max-mb 1 --max-minutes nan",
        "--max-minutes: must be ... not nan",
    ),
    (
        "compress {models}/good --max-mb 1 --max-minutes -5",
        "--max-minutes: must be ... not -5",
    ),
    ("eval {texts}/short.txt", "not in GGUF format"),
    ("eval {models}/short-context --data nothere", "--data: ... nothere' does not exist"),
    ("eval {texts}/void", "without config.json"),
    ("eval {models}/good --block-size 512", "--block-size: is 512 tokens ... 128"),
    ("eval {models}/good --block-size 32 --data {texts}/latin.txt", "not UTF-8"),
    ("bench absent", "there is no such folder"),
    ("bench {models}/good {models}/good", "named twice"),
    ("generate {models}/good -p x --top-k 5", "--top-k: ... --temperature above 0"),
    ("generate {models}/good -p x --top-p 2", "--top-p"),
    ("tune {models}/good --records text", "--records: ... learns from instructions"),
    ("report a --run b", "named twice"),
    ("compare {texts}/prose", "Name another run too"),
    ("quantize absent", "CKPT: 'absent' does not exist"),
    ("distill --teacher absent", "--teacher: 'absent' does not exist"),
    ("bench {models}/good", "holds no model.onnx ... export"),
    ("generate {models}/good -p x", "holds no model.onnx ... export"),
    ("generate absent --prompt=", "the prompt is empty"),
    ("verify " + "x" * 300, "cannot be read: File name too long"),
    ("export --out graph --run " + "x" * 300, "no finished stage to take a checkpoint from"),
    (
        f"{DISTILL} --top-k 4 --cache {{texts}}/short.txt {ON_TEXT}",
        "--cache: cannot be made ... a file",
    ),
    (
        f"{DISTILL} --top-k 4 --cache {{texts}}/short.txt/x {ON_TEXT}",
        "--cache: ... short.txt is a file",
    ),
    (f"{DISTILL} --top-k 4 --cache " + "x" * 300 + f" {ON_TEXT}", "--cache: ... name too long"),
    (f"{DISTILL} --top-k 4 --cache r/01-distill --run r {ON_TEXT}", "--cache: lies in the run r"),
    ("report", "runs/current: there is no finished run here"),
    ("report {texts}/prose", "there is no finished run here"),
    ("compare {texts}/prose {texts}/void", "there is no finished run here"),
    ("run {texts}/void", "it is a folder"),
    ("plan absent.yaml", "does not exist"),
    ("validate {texts}/latin.txt", "not UTF-8"),
    ("init -o absent/recipe.yaml", "cannot be written"),
    ("init absent", "CKPT: 'absent' does not exist"),
    ("compress absent --max-mb 1", "CKPT: 'absent' does not exist"),
]


@pytest.mark.parametrize(("command", "words"), PLACE_FAULTS)
def test_a_place_at_fault(command: str, words: str, refused: Callable[[str], str]) -> None:
    assert_says(refused(command), words)


def test_every_verb_is_given_something_at_fault() -> None:
    assert {command.split()[0] for command, _ in OPTION_FAULTS + PLACE_FAULTS} == set(verbs())


@pytest.mark.parametrize("figures", ["{", "[]", '{"schema": 1}', '{"schema": 99}'])
def test_figures_that_are_none(figures: str, refused: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(figures)
    assert_says(refused("report ."), "metrics.json: cannot be read as the figures of a run")
    assert_says(refused("compare . ."), "metrics.json: cannot be read as the figures of a run")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            '{"name": "a", "model": "m", "evaluation": {"windows": 0}}',
            "evaluation.windows: must be at least 1, not 0",
        ),
        (None, "it is a folder"),
        ("{", "Expecting property name"),
        *((value, "holds a JSON ") for value in ("null", "7", "[]")),
    ],
)
def test_the_recipe_of_a_run_at_fault(
    document: str | None, words: str, refused: Callable[[str], str], tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "current"
    run.mkdir(parents=True)
    (run / MARKER_NAME).write_text(marker_text())
    if document is None:
        (run / "resolved.json").mkdir()
    else:
        (run / "resolved.json").write_text(document)
    said = refused("quantize")
    assert_says(said, f"runs/current/resolved.json: cannot be read as the recipe of a run: {words}")
    assert said.count("resolved.json") == 1
    assert "docs/reference/recipes.md" not in said


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(refused: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    assert_says(refused(f"quantize {{models}}/good {ON_TEXT} --run locked/run"), "Permission denied")


def test_what_needs_no_weights_is_refused_in_under_5_seconds(
    models: Path, texts: Path, tmp_path: Path
) -> None:
    """Five commands in one process, which together take no longer than any may."""
    code = (
        "import sys\n"
        "from roots_compress.cli.app import app\n"
        "for command in sys.argv[1:]:\n"
        "    try:\n        app(command.split())\n"
        "    except SystemExit as end:\n        assert end.code == 2, (command, end.code)\n"
        "    else:\n        raise AssertionError(command)\n"
        "    assert 'torch' not in sys.modules, command\n"
    )
    commands = (
        f"quantize {{models}}/lfs {ON_TEXT}",
        f"{DISTILL} --student {{models}}/other-tokens {ON_TEXT}",
        f"quantize {{models}}/good {ON_TEXT} --run {{texts}}/prose",
        f"quantize {{models}}/good {ON_TEXT} --int8-cache",
        "quantize {models}/good --block-size 32 --data {texts}/latin.txt",
        "eval {models}/good --block-size 512",
    )
    arguments = [command.format(models=models, texts=texts) for command in commands]
    # Processor time, which unlike the clock does not depend on what else the machine is doing.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
    assert not any(tmp_path.iterdir())
