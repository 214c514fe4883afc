from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from roots_compress.errors import InputError, StageError
from roots_compress.results import Protocol, RunMetrics, StageKind
from roots_compress.run.keys import StageKey
from roots_compress.run.lock import OWNER_NAME, WriterLock
from roots_compress.run.manifest import Manifest, ManifestError
from roots_compress.run.marker import MARKER_NAME
from roots_compress.run.run_folder import FAILURE_NAME, RunFolder, why_unfinished
from roots_compress.run.stages import newest_checkpoint, read_metrics, read_stages, verify
from tests.run.stubs import MACHINE, add_stage, contents, make_key, make_result


def test_a_committed_stage_is_read_back(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run") as run:
        baseline = add_stage(run, "baseline", "b")
        prune = add_stage(run, "prune", "p")
    chain, left_out = read_stages(tmp_path / "run")
    assert chain == [baseline, prune]
    assert left_out == {}
    assert chain[1].result == make_result(1, "prune", "prune")
    assert (chain[1].onnx / "model.onnx").read_text() == "ppp"
    assert chain[1].manifest.inputs == {"text": "ab" * 32}


def test_a_commit_leaves_nothing_but_final_names(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        add_stage(run, "baseline", "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".roots-run.json",
        ".roots-run.lock",
        ".roots-run.owner",
        "00-baseline",
    ]
    assert sorted(path.name for path in (tmp_path / "00-baseline").iterdir()) == [
        "checkpoint",
        "manifest.json",
        "metrics.json",
        "onnx",
    ]


def test_an_uncommitted_stage_is_not_a_stage(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        workspace = run.begin(0, "baseline", "baseline", make_key(None))
        (workspace.checkpoint / "model.safetensors").write_text("half")
        assert run.stages() == []


def test_work_of_an_equal_key_is_kept_and_outputs_are_not(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        workspace = run.begin(0, "train", "train", make_key(None, steps=10))
        (workspace.work / "step").write_text("7")
        (workspace.onnx / "model.onnx").write_text("half")
    with RunFolder.open(tmp_path) as run:
        workspace = run.begin(0, "train", "train", make_key(None, steps=10))
        assert (workspace.work / "step").read_text() == "7"
        assert list(workspace.onnx.iterdir()) == []


@pytest.mark.parametrize("kind", ["train", "distill"])
def test_work_of_another_key_is_dropped(tmp_path: Path, kind: StageKind) -> None:
    with RunFolder.open(tmp_path) as run:
        workspace = run.begin(0, "train", "train", make_key(None, steps=10))
        (workspace.work / "step").write_text("7")
        workspace = run.begin(0, kind, kind, make_key(None, steps=20))
        assert list(workspace.work.iterdir()) == []
        assert len(list(tmp_path.glob(".*.partial"))) == 1


def test_replacing_a_stage_removes_those_made_from_it(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        for kind, content in (("baseline", "b"), ("prune", "p"), ("quantize", "q")):
            add_stage(run, kind, content)
        add_stage(run, "distill", "d", at=1)
        assert contents(tmp_path) == [("00-baseline", "b"), ("01-distill", "d")]
        assert not list(tmp_path.glob("*prune*"))
        assert not list(tmp_path.glob("*quantize*"))


def test_a_stage_made_again_as_it_was_leaves_those_made_from_it(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        for kind, content in (("baseline", "b"), ("prune", "p"), ("quantize", "q")):
            add_stage(run, kind, content)
        key = make_key(run.stages()[-1], content="t")
        (run.begin(3, "train", "train", key).work / "step").write_text("7")
        (tmp_path / "01-prune" / "onnx" / "model.onnx").write_text("damaged")
        assert len(run.stages()) == 1
        add_stage(run, "prune", "p", at=1)
        assert contents(tmp_path) == [("00-baseline", "b"), ("01-prune", "p"), ("02-quantize", "q")]
        assert (run.begin(3, "train", "train", key).work / "step").read_text() == "7"


def test_a_stage_of_an_equal_key_and_other_weights_removes_those_made_from_it(tmp_path: Path) -> None:
    """As where its settings were chosen by a clock: the stages after it were made from another model."""
    with RunFolder.open(tmp_path) as run:
        add_stage(run, "baseline", "b")
        prune = add_stage(run, "prune", "p")
        add_stage(run, "quantize", "q")
        workspace = run.begin(1, "prune", "prune", prune.key)
        (workspace.checkpoint / "model.safetensors").write_text("others")
        workspace.commit(make_result(1, "prune", "prune"), machine=MACHINE)
        assert contents(tmp_path) == [("00-baseline", "b"), ("01-prune", "others")]


def test_a_stage_of_another_key_removes_those_made_from_it_though_its_weights_are_the_same(
    tmp_path: Path,
) -> None:
    with RunFolder.open(tmp_path) as run:
        baseline = add_stage(run, "baseline", "b")
        add_stage(run, "prune", "p")
        add_stage(run, "quantize", "q")
        workspace = run.begin(1, "prune", "prune", make_key(baseline, content="p", seed=1))
        (workspace.checkpoint / "model.safetensors").write_text("p")
        workspace.commit(make_result(1, "prune", "prune"), machine=MACHINE)
    assert not list(tmp_path.glob("*quantize*"))


def test_a_manifest_whose_key_is_not_that_of_its_ingredients_is_not_believed(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        manifest = add_stage(run, "baseline", "b").manifest
    assert Manifest.from_text(manifest.to_text()) == manifest
    forged = replace(manifest, key=StageKey(manifest.key.ingredients, "0" * 64))
    with pytest.raises(ManifestError, match="changed since"):
        Manifest.from_text(forged.to_text())


@pytest.mark.parametrize(("key", "value"), [("index", "1e400"), ("seconds", "1" + "0" * 400), ("name", "[")])
def test_a_manifest_with_a_value_that_cannot_be_is_not_believed(tmp_path: Path, key: str, value: str) -> None:
    with RunFolder.open(tmp_path) as run:
        text = add_stage(run, "baseline", "b").manifest.to_text()
    edited = re.sub(rf'("{key}": ?)("[^"]*"|[\d.]+)', rf"\g<1>{value}", text)
    assert edited != text
    with pytest.raises(ManifestError, match="unreadable"):
        Manifest.from_text(edited)


def test_a_folder_that_becomes_foreign_before_it_is_locked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = WriterLock.acquire

    def late(lock: WriterLock) -> None:
        acquire(lock)
        (tmp_path / "foreign").write_text("mine")

    monkeypatch.setattr(WriterLock, "acquire", late)
    with pytest.raises(InputError, match="no run of roots-compress"):
        RunFolder.open(tmp_path, fresh=True)
    assert not (tmp_path / MARKER_NAME).exists()


def test_the_owners_file_does_not_follow_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / OWNER_NAME).symlink_to(victim)
    with RunFolder.open(tmp_path / "run"):
        pass
    assert victim.read_text() == "precious"


def test_the_old_stage_stands_until_its_successor_is_committed(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        baseline = add_stage(run, "baseline", "b")
        add_stage(run, "prune", "old")
        run.begin(1, "prune", "prune", make_key(baseline, content="new"))
        assert contents(tmp_path)[1] == ("01-prune", "old")


def test_discard_deletes_from_an_index_on(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        add_stage(run, "baseline", "b")
        add_stage(run, "prune", "p")
        run.discard(1)
        assert contents(tmp_path) == [("00-baseline", "b")]
        assert not list(tmp_path.glob("*prune*"))


def test_a_stage_made_from_another_parent_is_left_out(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "a") as run:
        add_stage(run, "baseline", "b")
    with RunFolder.open(tmp_path / "b") as run:
        add_stage(run, "baseline", "other")
        add_stage(run, "prune", "p")
    (tmp_path / "b" / "01-prune").rename(tmp_path / "a" / "01-prune")
    chain, left_out = read_stages(tmp_path / "a")
    assert len(chain) == 1
    assert left_out == {"01-prune": "made from another stage 00 than the one here"}


@pytest.mark.parametrize(
    "name", ["checkpoint/model.safetensors", "onnx/model.onnx", "metrics.json", "manifest.json"]
)
def test_every_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    with RunFolder.open(tmp_path) as run:
        stage = add_stage(run, "baseline", "content")
    path = stage.path / name
    intact = path.read_bytes()
    for position in range(0, len(intact), max(1, len(intact) // 200)):
        flipped = bytearray(intact)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        chain, left_out = read_stages(tmp_path)
        assert left_out or verify(chain[0]) == [f"{name} changed since it was committed"]


def test_lost_and_foreign_files_are_found_without_hashing(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        stage = add_stage(run, "baseline", "b")
    (stage.path / "onnx" / "model.onnx").unlink()
    (stage.path / "extra").write_text("?")
    assert read_stages(tmp_path) == (
        [],
        {"00-baseline": "extra is not in the manifest; onnx/model.onnx is missing"},
    )


def test_a_link_in_a_committed_stage_is_found(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        stage = add_stage(run, "baseline", "b")
    weights = stage.checkpoint / "model.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    assert verify(stage) == ["checkpoint/model.safetensors is neither a file nor a folder"]


def test_a_link_cannot_be_committed(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        workspace = run.begin(0, "baseline", "baseline", make_key(None))
        (workspace.checkpoint / "link").symlink_to("/etc/passwd")
        with pytest.raises(StageError, match="link is neither a file nor a folder"):
            workspace.commit(make_result(0, "baseline", "baseline"), machine=MACHINE)
        assert run.stages() == []


def test_a_figure_that_is_not_finite_cannot_be_committed(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        workspace = run.begin(0, "baseline", "baseline", make_key(None))
        with pytest.raises(StageError, match="not a finite number"):
            workspace.commit(make_result(0, "baseline", "baseline", perplexity=float("nan")), machine=MACHINE)
        assert run.stages() == []


@pytest.mark.parametrize("fresh", [False, True])
def test_a_foreign_folder_is_refused_untouched(tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "00-baseline").mkdir()
    with pytest.raises(InputError, match="output folder in use"):
        RunFolder.open(tmp_path, fresh=fresh)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00-baseline", "thesis.txt"]


@pytest.mark.parametrize("marker", ["", "[]", "{}", '{"schema": 99}', "[" * 100_000])
def test_a_marker_that_is_not_ours_is_refused(tmp_path: Path, marker: str) -> None:
    (tmp_path / MARKER_NAME).write_text(marker)
    with pytest.raises(InputError, match=r"output folder in use.*(is damaged|has schema 99)"):
        RunFolder.open(tmp_path, fresh=True)


def test_fresh_deletes_the_run_and_nothing_else(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        add_stage(run, "baseline", "b")
        run.begin(1, "prune", "prune", make_key(run.stages()[0]))
        run.write_text("report.html", "<p>")
    (tmp_path / "notes.txt").write_text("mine")
    with RunFolder.open(tmp_path, fresh=True) as run:
        assert run.stages() == []
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".roots")) == [
        "notes.txt"
    ]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="is a file, not a folder"):
        RunFolder.open(tmp_path / "run")


def test_a_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="lies under one"):
        RunFolder.open(tmp_path / "file" / "run")


def test_metrics_are_written_as_read(tmp_path: Path) -> None:
    protocol = Protocol(8, 1, 7, 20, True, "ab", "cd", (8,), 4, 3, 1, "a test")
    metrics = RunMetrics("demo", MACHINE, protocol, (make_result(0, "baseline", "baseline"),))
    with RunFolder.open(tmp_path) as run:
        run.write_metrics(metrics)
    assert read_metrics(tmp_path) == metrics


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": 2}', '{"schema": 1, "protocol": 3}', "\x00"])
def test_metrics_that_are_not_metrics_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(InputError, match="cannot be read as the figures of a run"):
        read_metrics(tmp_path)


def test_absent_metrics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run here"):
        read_metrics(tmp_path / "nowhere")
    with RunFolder.open(tmp_path / "begun"):
        pass
    with pytest.raises(InputError, match="the run here is not finished"):
        read_metrics(tmp_path / "begun")


def test_the_newest_checkpoint_is_the_last_stages(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        add_stage(run, "baseline", "b")
        prune = add_stage(run, "prune", "p")
    assert newest_checkpoint(tmp_path) == prune.checkpoint


def test_a_run_without_stages_has_no_newest_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished stage"):
        newest_checkpoint(tmp_path)


HOLDER = """
import sys, time
from pathlib import Path
from roots_compress.run.run_folder import RunFolder
with RunFolder.open(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(InputError, match=rf"another process .* \(process {holder.pid}\)"):
                RunFolder.open(tmp_path)
        finally:
            holder.send_signal(signal.SIGKILL)
    with RunFolder.open(tmp_path) as run:
        assert run.stages() == []


def test_the_lock_does_not_follow_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".roots-run.lock").symlink_to(victim)
    with pytest.raises(InputError, match="cannot write the run"):
        RunFolder.open(tmp_path / "run")
    assert victim.read_text() == "precious"


def test_a_folder_of_the_users_with_a_stages_name_is_left_alone(tmp_path: Path) -> None:
    own = tmp_path / "01-notes"
    with RunFolder.open(tmp_path) as run:
        add_stage(run, "baseline", "b")
        own.mkdir()
        (own / "note.txt").write_text("mine")
        add_stage(run, "prune", "p")
        assert read_stages(tmp_path)[1] == {}
    with RunFolder.open(tmp_path, fresh=True) as run:
        assert run.stages() == []
    assert (own / "note.txt").read_text() == "mine"


def test_why_a_run_failed_may_name_a_path_that_is_no_text(tmp_path: Path) -> None:
    named = Path(os.fsdecode(b"caf\xe9/model"))

    def fail() -> None:
        with RunFolder.open(tmp_path) as run:
            add_stage(run, "baseline", "b")
            raise StageError("the weights are gone", where=named)

    with pytest.raises(StageError, match="weights are gone") as caught:
        fail()
    assert caught.value.where == str(named)
    assert why_unfinished(tmp_path) == "caf\ufffd/model: the weights are gone\n"


@pytest.mark.parametrize("content", [b"caf\xe9 \x1b[31m", b"x" * (2 << 20), None])
def test_why_a_run_failed_is_read_from_any_file(content: bytes | None, tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        add_stage(run, "baseline", "b")
    if content is None:
        os.mkfifo(tmp_path / FAILURE_NAME)
    else:
        (tmp_path / FAILURE_NAME).write_bytes(content)
    stopped = "the run was stopped, or still goes on"
    assert why_unfinished(tmp_path) in ("caf\ufffd \ufffd[31m", stopped)
