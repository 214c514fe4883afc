"""Where output may go."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from roots_compress.errors import InputError, StageError
from roots_compress.run.marker import MARKER_NAME, marker_text
from roots_compress.run.outputs import new_folder, refuse_inside


def test_a_new_folder_appears_when_it_is_filled(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with new_folder(target, source=tmp_path / "source") as partial:
        (partial / "a").write_text("x")
        assert not target.exists()
    assert (target / "a").read_text() == "x"
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_a_new_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with new_folder(tmp_path / "a" / "out", source=tmp_path / "source") as partial:
            (partial / "a").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_is_refused_before_the_work(tmp_path: Path) -> None:
    for place in (tmp_path / ("x" * 300), tmp_path / "new" / ("x" * 300)):
        with pytest.raises(InputError, match="output cannot be made"):
            new_folder(place, source=tmp_path / "source").__enter__()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG])
def test_a_disk_that_fails_is_told_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    place = tmp_path / "a" / "out"

    def failing() -> None:
        with new_folder(place, source=tmp_path / "source", size=7_350_000) as partial:
            (partial / "a").write_text("x")
            raise OSError(number, os.strerror(number), str(partial / "b"))

    with pytest.raises(StageError, match="output cannot be written") as caught:
        failing()
    assert caught.value.where == str(place)
    needed = "The weights alone take 7.35 MB, and " in (caught.value.remedy or "")
    assert needed == (number in (errno.ENOSPC, errno.EDQUOT))
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_fails_meanwhile_is_not_told_as_the_output(tmp_path: Path) -> None:
    with (
        pytest.raises(StageError, match="cannot be read or written") as caught,
        new_folder(tmp_path / "out", source=tmp_path / "source"),
    ):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(tmp_path / "source" / "weights"))
    assert caught.value.where == str(tmp_path / "source" / "weights")


def test_a_name_may_be_as_long_as_names_may_be(tmp_path: Path) -> None:
    with new_folder(tmp_path / ("n" * 255), source=tmp_path / "source") as partial:
        (partial / "a").write_text("x")
    assert (tmp_path / ("n" * 255) / "a").exists()


@pytest.mark.parametrize("place", [".", "/", ".."])
def test_a_folder_without_a_name_exists_already(place: str, tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="output exists already"),
        new_folder(Path(place), source=tmp_path / "source"),
    ):
        pass


def test_an_existing_folder_is_not_a_new_one(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="output exists already"),
        new_folder(tmp_path, source=tmp_path / "source"),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="output cannot be made"),
        new_folder(tmp_path / "file" / "out", source=tmp_path / "source"),
    ):
        pass


def test_a_new_folder_is_not_made_in_what_it_is_made_from(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    place = tmp_path / "source" / "a" / "out"
    with (
        pytest.raises(InputError, match="which it is made from"),
        new_folder(place, source=tmp_path / "source"),
    ):
        pass
    assert not any((tmp_path / "source").iterdir())


@pytest.mark.parametrize("place", ["out", "03-quantize/out", "03-quantize/onnx/a/b"])
def test_nothing_is_written_into_a_run(tmp_path: Path, place: str) -> None:
    run = tmp_path / "run"
    (run / "03-quantize").mkdir(parents=True)
    (run / MARKER_NAME).write_text(marker_text())
    with (
        pytest.raises(InputError, match="lies in the run"),
        new_folder(run / place, source=tmp_path / "source"),
    ):
        pass
    assert sorted(path.name for path in run.rglob("*")) == [MARKER_NAME, "03-quantize"]


def test_a_link_into_a_run_leads_into_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / MARKER_NAME).write_text(marker_text())
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(InputError, match="lies in the run"):
        refuse_inside(tmp_path / "link" / "out", None)
    refuse_inside(tmp_path / "link", None)  # The run itself may grow.
