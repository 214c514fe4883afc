"""The stage cache: stages that give way are kept, and come back whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from roots_compress.io import atomic
from roots_compress.run.run_folder import RunFolder
from roots_compress.run.stages import read_stages, verify
from tests.run.stubs import MACHINE, add_stage, contents, make_key, make_result


def test_without_a_cache_what_gives_way_is_gone(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        add_stage(run, "baseline", "b")
        old = add_stage(run, "prune", "p")
        add_stage(run, "prune", "q", at=1)
        assert run.restore(1, old.key) is None
    assert contents(tmp_path) == [("00-baseline", "b"), ("01-prune", "q")]


def test_a_stage_that_gave_way_comes_back_with_what_was_made_from_it(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        add_stage(run, "baseline", "b")
        run.keep_displaced()
        first, second = add_stage(run, "prune", "p"), add_stage(run, "quantize", "x")
        other = add_stage(run, "distill", "d", at=1)
        assert contents(tmp_path) == [("00-baseline", "b"), ("01-distill", "d")]
        for stage in (first, second):
            restored = run.restore(stage.index, stage.key)
            assert restored == stage
            assert verify(restored) == []
        assert contents(tmp_path) == [("00-baseline", "b"), ("01-prune", "p"), ("02-quantize", "x")]
        assert run.restore(1, other.key) == other
    assert contents(tmp_path) == [("00-baseline", "b"), ("01-distill", "d")]
    assert sum(1 for _ in (tmp_path / "shelf").glob("*/*")) == 2, "each stage is on the disk once"


def test_a_stage_that_chose_something_comes_back_for_what_was_asked(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        baseline = add_stage(run, "baseline", "b")
        run.keep_displaced()
        asked = make_key(baseline, content="q")
        workspace = run.begin(1, "quantize", "quantize", asked)
        assert workspace.chosen is None
        made = make_result(1, "quantize", "quantize")
        stage = workspace.commit(made, machine=MACHINE, chosen={"products": "float"})
        assert stage.key.ingredients["chosen"] == {"products": "float"}
        assert [each.key for each in run.stages()] == [baseline.key, stage.key]
        add_stage(run, "prune", "p", at=1)
        assert run.restore(1, asked) == stage


def test_the_same_stage_begun_again_is_told_what_it_chose(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        baseline = add_stage(run, "baseline", "b")
        asked, chosen = make_key(baseline, content="q"), {"products": "float"}
        made = make_result(1, "quantize", "quantize")
        run.begin(1, "quantize", "quantize", asked).commit(made, machine=MACHINE, chosen=chosen)
        assert run.begin(1, "quantize", "quantize", asked).chosen == chosen
        assert run.begin(1, "quantize", "quantize", make_key(baseline, content="r")).chosen is None


@pytest.mark.parametrize("damage", ["q", "longer"])
@pytest.mark.parametrize("kept", [False, True], ids=["standing", "kept"])
def test_a_damaged_stage_of_a_search_begun_again_is_told_what_it_chose(
    damage: str, kept: bool, tmp_path: Path
) -> None:
    with RunFolder.open(tmp_path) as run:
        baseline = add_stage(run, "baseline", "b")
        run.keep_displaced()
        asked, chosen = make_key(baseline, content="q"), {"products": "float"}
        workspace = run.begin(1, "quantize", "quantize", asked)
        (workspace.checkpoint / "model.safetensors").write_text("p")
        stage = workspace.commit(make_result(1, "quantize", "quantize"), machine=MACHINE, chosen=chosen)
        (stage.checkpoint / "model.safetensors").write_text(damage)
        if kept:
            add_stage(run, "prune", "p", at=1)
        assert run.restore(1, asked) is None
        for _ in range(2):
            workspace = run.begin(1, "quantize", "quantize", asked)
            assert workspace.chosen == chosen, "also where the first attempt was killed"
        workspace.commit(make_result(1, "quantize", "quantize"), machine=MACHINE, chosen=chosen)
        kept_stages = [path.name for path in (tmp_path / "shelf").glob("*/*")]
        assert kept_stages == ["01-prune"] * kept, "each stage is on the disk once"


@pytest.mark.parametrize("damage", ["q", "longer"])
def test_a_stage_that_changed_in_the_cache_is_not_taken_back(damage: str, tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        add_stage(run, "baseline", "b")
        run.keep_displaced()
        stage = add_stage(run, "prune", "p")
        run.discard(1)
        (path,) = (tmp_path / "shelf").glob("*/01-prune")
        (path / "checkpoint" / "model.safetensors").write_text(damage)
        assert run.restore(1, stage.key) is None
        assert run.restore(1, make_key(None)) is None
        assert contents(tmp_path) == [("00-baseline", "b")]
        add_stage(run, "prune", "p")
        assert not path.exists()
    assert contents(tmp_path) == [("00-baseline", "b"), ("01-prune", "p")]


def test_an_equal_stage_made_again_takes_the_place_of_the_one_kept(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        add_stage(run, "baseline", "b")
        run.keep_displaced()
        for _ in range(2):
            stage = add_stage(run, "prune", "p", at=1)
            run.discard(1)
        assert run.restore(1, stage.key) == stage


@pytest.mark.parametrize("survived", range(4))
def test_killed_between_two_moves_nothing_is_lost(
    survived: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    with RunFolder.open(tmp_path) as run:
        add_stage(run, "baseline", "b")
        run.keep_displaced()
        kept = add_stage(run, "distill", "d")
        others = [add_stage(run, "prune", "p", at=1), add_stage(run, "quantize", "x")]
    moves = 0
    move = atomic.move_folder

    def move_or_die(source: Path, target: Path) -> None:
        nonlocal moves
        if moves == survived:
            raise KilledError
        moves += 1
        move(source, target)

    monkeypatch.setattr(atomic, "move_folder", move_or_die)
    with RunFolder.open(tmp_path) as run:
        if survived == 3:
            assert run.restore(1, kept.key) == kept
        else:
            with pytest.raises(KilledError):
                run.restore(1, kept.key)
    monkeypatch.undo()
    assert read_stages(tmp_path)[1] == {}
    with RunFolder.open(tmp_path) as run:
        for stage in (kept, *others):
            standing = {each.key.sha256: each for each in run.stages()}
            assert standing.get(stage.key.sha256) == stage or run.restore(stage.index, stage.key) == stage
