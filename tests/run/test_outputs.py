"""Where output may go."""

from __future__ import annotations

from pathlib import Path

import pytest

from roots_compress.errors import InputError
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
