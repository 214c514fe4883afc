"""Verbs where places are hard: names of any bytes, links, full disks, no folder for temporary files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from roots_compress.checkpoints.checkpoint import Checkpoint, save_checkpoint
from tests.cli.surroundings import Step, allows_mounts, command
from tests.faults.commands import Commands
from tests.tiny import TEXT, tiny_model, tiny_tokenizer

NAMES = {
    "no text": b"caf\xe9\xff",
    "lines, markup, right to left": "a\nb[red]{x}<b>&$(y)\u202ez".encode(),
    "long": b"n" * 255,
}
OK = 0
QUICK = [
    *("--weights-only", "--set", "calibration.windows=2", "--set", "calibration.block_size=16"),
    *("--set", "own_windows=2"),
]
"""Nothing is timed, and little is read."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, with a text beside it."""
    folder = tmp_path_factory.mktemp("good")
    save_checkpoint(Checkpoint(tiny_model(), tiny_tokenizer()), folder / "model")
    (folder / "text.txt").write_text("\n\n".join([TEXT] * 8), encoding="utf-8")
    return folder / "model"


@pytest.fixture(scope="module")
def graph(model: Path) -> Path:
    """A graph with its weights in a file beside it, as large ones have them."""
    from roots_compress.checkpoints.checkpoint import load_checkpoint
    from roots_compress.configs.export import ExportConfig
    from roots_compress.export.exporter import export_checkpoint, save_graph
    from roots_compress.export.graph import build_graph

    folder = model.parent / "graph"
    export_checkpoint(load_checkpoint(model), folder, ExportConfig())
    (folder / "model.onnx").unlink()
    save_graph(build_graph(tiny_model()), folder, inline_limit=0)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_models_and_graphs_may_be_in_folders_of_any_name(
    name: str, commands: Commands, tmp_path: Path, model: Path, graph: Path
) -> None:
    odd = tmp_path / os.fsdecode(NAMES[name])
    try:
        odd.mkdir()
    except OSError:
        pytest.skip("this file system refuses the name")
    shutil.copytree(model, odd / "model")
    shutil.copytree(graph, odd / "graph")
    shutil.copyfile(model.parent / "text.txt", odd / "text.txt")
    text: list[str | Path] = ["--data", odd / "text.txt", "--windows", "2", "--block-size", "16"]
    verbs: list[list[str | Path]] = [
        ["export", odd / "model", "--out", odd / "exported"],
        ["generate", odd / "graph", "-p", "The quick", "--max-new-tokens", "2"],
    ]
    if name == "no text":  # Libraries get another name than the file system's.
        verbs += [
            ["import", odd / "model", "--out", odd / "imported"],
            ["eval", odd / "model", *text],
            ["eval", odd / "graph", *text],
            ["bench", odd / "graph", "--context", "8", "--repeats", "1", "--decode-tokens", "1"],
            ["verify", odd / "graph"],
            ["init", odd / "model", "-o", odd / "recipe.yaml"],
        ]
    for arguments in verbs:
        code, said = command(commands, *arguments)
        assert code == OK, (arguments[0], said)


def test_a_run_may_be_in_a_folder_whose_name_is_no_text(
    commands: Commands, tmp_path: Path, model: Path
) -> None:
    odd = tmp_path / os.fsdecode(NAMES["no text"])
    try:
        odd.mkdir()
    except OSError:
        pytest.skip("this file system refuses the name")
    shutil.copytree(model, odd / "model")
    shutil.copyfile(model.parent / "text.txt", odd / "text.txt")
    text = ["--data", odd / "text.txt", "--windows", "2", "--block-size", "16", "--threads", "1"]
    short = ["--steps", "2", "--train-block-size", "16"]
    run = odd / "run"
    for arguments in (
        ["quantize", odd / "model", "--run", run, *text, *QUICK],
        ["distill", "--teacher", odd / "model", "--run", odd / "taught", *text, *short],
        ["verify", run],
        ["report", run],
        ["report", run, "--format", "markdown"],
        ["report", run, "--format", "html"],
        ["report", run, "--format", "json"],
        ["compare", run, odd / "taught"],
        ["plan", run / "recipe.yaml"],
        ["validate", run / "recipe.yaml"],
        ["run", run / "recipe.yaml", "--run", run],
    ):
        code, said = command(commands, *arguments)
        assert code == OK, (arguments[0], said)


def test_a_name_in_the_current_folder_may_begin_with_a_dash(
    commands: Commands, tmp_path: Path, model: Path
) -> None:
    shutil.copytree(model, tmp_path / "-model")
    here: Step = ("go", tmp_path)
    code, said = command(commands, "import", "--out", "-out", "--", "-model", prepare=(here,))
    assert code == OK, said
    assert (tmp_path / "-out" / "model.safetensors").exists()


def test_a_checkpoint_may_be_links_into_a_cache(commands: Commands, tmp_path: Path, model: Path) -> None:
    """The cache of huggingface_hub: a snapshot links to blobs by relative paths, and may be a link too."""
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "f00d"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(model.iterdir())):
        shutil.copyfile(file, blobs / str(number))
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", str(number)))
    (tmp_path / "link").symlink_to(snapshot, target_is_directory=True)
    for source in (snapshot, tmp_path / "link"):
        code, said = command(commands, "import", source, "--out", tmp_path / f"out-{source.name}")
        assert code == OK, said
    code, said = command(commands, "export", tmp_path / "link", "--out", tmp_path / "link" / "graph")
    assert code == 2, said
    assert "which it is made from" in said


def test_links_that_lead_nowhere_are_told(commands: Commands, tmp_path: Path, model: Path) -> None:
    loop, broken = tmp_path / "loop", tmp_path / "broken"
    loop.symlink_to(loop)
    shutil.copytree(model, broken)
    (broken / "model.safetensors").unlink()
    (broken / "model.safetensors").symlink_to(tmp_path / "absent")
    for arguments in (
        ["import", loop, "--out", tmp_path / "out"],
        ["import", broken, "--out", tmp_path / "out"],
        ["import", model, "--out", loop],
        ["import", model, "--out", loop / "out"],
        ["generate", loop, "-p", "The"],
        ["eval", loop],
        ["bench", loop],
        ["verify", loop],
        ["report", loop],
        ["validate", loop],
        ["run", loop],
    ):
        code, said = command(commands, *arguments)
        assert code == 2, (arguments, said)


def test_a_current_folder_that_is_gone_is_told(commands: Commands, tmp_path: Path, model: Path) -> None:
    for arguments, told in (
        (["import", model, "--out", "out"], "No such file or directory"),
        (["quantize", "model"], "'model' does not exist"),
        (["doctor"], "the current folder cannot be found: No such file or directory"),
        (["init"], "No such file or directory"),
    ):
        (tmp_path / "gone").mkdir()
        code, said = command(commands, *arguments, prepare=(("go_and_lose", tmp_path / "gone"),))
        assert code in (1, 2), (arguments, said)
        assert "error:" in said
        assert told in said


@pytest.mark.parametrize("options", ["size=4k", "nr_inodes=1", "nr_inodes=3"])
def test_no_room_for_temporary_files_names_their_folder(
    commands: Commands, tmp_path: Path, model: Path, graph: Path, options: str
) -> None:
    place = tmp_path / "small"
    place.mkdir()
    if not allows_mounts(place):
        pytest.skip("mounts need root on Linux")

    # A file of a page shows that the folder can be written to, as tempfile asks.
    small: tuple[Step, ...] = (("small_disk", place, options), ("temporary_files_in", place))
    text: list[str | Path] = ["--data", model.parent / "text.txt", "--windows", "2", "--block-size", "16"]
    verbs: list[list[str | Path]] = [
        ["generate", graph, "-p", "The"],
        ["import", model, "--out", tmp_path / "out"],
    ]
    if options == "size=4k":
        verbs += [
            ["eval", graph],
            ["export", model, "--out", tmp_path / "out"],
            ["quantize", model, "--run", tmp_path / "run", *text],
        ]
    for arguments in verbs:
        code, said = command(commands, *arguments, prepare=small)
        assert code in (1, 2), (arguments, said)
        assert str(place) in said
        assert "TMPDIR" in said
        assert not (tmp_path / "out").exists()


def test_no_folder_for_temporary_files_at_all(
    commands: Commands, tmp_path: Path, model: Path, graph: Path
) -> None:
    none: tuple[Step, ...] = (("no_temporary_folder",),)
    recipe = tmp_path / "recipe.yaml"
    code, said = command(commands, "init", model, "-o", recipe, "--data", model.parent / "text.txt")
    assert code == OK, said
    verbs: tuple[list[str | Path], ...] = (
        ["generate", graph, "-p", "The"],
        ["import", model, "--out", tmp_path / "out"],
        ["plan", recipe, "--run", tmp_path / "run"],
    )
    for arguments in verbs:
        code, said = command(commands, *arguments, prepare=none)
        assert code == 1, said
        assert "TMPDIR" in said
    # Measuring needs none.
    bench = ["bench", graph, "--context", "8", "--repeats", "1", "--decode-tokens", "1"]
    code, said = command(commands, *bench, prepare=none)
    assert code == OK, said


@pytest.mark.parametrize("options", ["size=16k", "size=100k", "nr_inodes=3"])
def test_an_output_without_room_names_its_folder_and_what_it_takes(
    commands: Commands, tmp_path: Path, model: Path, options: str
) -> None:
    place = tmp_path / "small"
    place.mkdir()
    if not allows_mounts(place):
        pytest.skip("mounts need root on Linux")
    for verb in ("import", "export"):
        small: Step = ("small_disk", place, options)
        code, said = command(commands, verb, model, "--out", place / "out", prepare=(small,))
        assert code == 1, said
        assert "output cannot be written: No space left on device" in said
        assert str(place / "out") in said
        needed = "no more files can be made" if options == "nr_inodes=3" else "weights alone take 100 kB"
        assert needed in said


WRITE_BACK = """
import sys
from pathlib import Path
from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.checkpoints.write_back import write_back
from tests.cli import surroundings
model, place = map(Path, sys.argv[1:])
checkpoint = load_checkpoint(model)
surroundings.small_disk(str(place), "size=16k")
try:
    write_back(checkpoint, "llama", place / "out")
except OSError as error:
    print(error.strerror, error.filename)
"""


def test_a_disk_without_room_for_a_familys_own_files_is_an_error_of_the_system(
    tmp_path: Path, model: Path
) -> None:
    place = tmp_path / "small"
    place.mkdir()
    if not allows_mounts(place):
        pytest.skip("mounts need root on Linux")
    done = subprocess.run(
        [sys.executable, "-c", WRITE_BACK, model, place], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"No space left on device {place}/out/model.safetensors\n"


def test_a_recipe_without_room_leaves_no_empty_file(commands: Commands, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    if not allows_mounts(place):
        pytest.skip("mounts need root on Linux")

    full: tuple[Step, ...] = (("small_disk", place, "size=4k"), ("fill", place / "other", "4096"))
    code, said = command(commands, "init", "-o", place / "recipe.yaml", prepare=full)
    assert code == 2, said
    assert "No space left on device" in said


def test_what_only_reads_needs_no_place_to_write(commands: Commands, tmp_path: Path, model: Path) -> None:
    """A run on a disk for reading only, from a folder for reading only, with such a home."""
    run = tmp_path / "run"
    text = ["--data", model.parent / "text.txt", "--windows", "2", "--block-size", "16"]
    code, said = command(commands, "quantize", model, "--run", run, *text, *QUICK)
    assert code == OK, said
    place = tmp_path / "small"
    place.mkdir()
    if not allows_mounts(place):
        pytest.skip("mounts need root on Linux")

    locked: tuple[Step, ...] = (
        ("small_disk", place, "size=16M"),
        ("copy", run, place),
        ("copy", model, place),
        ("lock", place),
    )
    graph = place / "run" / "01-quantize"
    for arguments in (
        ["verify", place / "run"],
        ["verify", graph / "onnx"],
        ["report", place / "run"],
        ["compare", place / "run", place / "run"],
        ["generate", graph, "-p", "The", "--max-new-tokens", "2"],
        ["eval", graph, *text],
        ["eval", "model", *text],
        ["bench", graph, "--context", "8", "--repeats", "1", "--decode-tokens", "1"],
        ["import", "model", "--out", tmp_path / "imported"],
        ["export", "model", "--out", tmp_path / "exported"],
    ):
        code, said = command(commands, *arguments, prepare=locked)
        assert code == OK, (arguments, said)
    for refused in (["import", "model", "--out", "out"], ["init"], ["quantize", "model", *text]):
        code, said = command(commands, *refused, prepare=locked)
        assert code == 2, (refused, said)
        assert "Read-only file system" in said
