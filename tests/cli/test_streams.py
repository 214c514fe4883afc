"""Standard streams that are full, closed, left by their reader, or of an encoding that lacks a character."""

from __future__ import annotations

from pathlib import Path

import pytest

from roots_compress.configs.recipe.schema import Recipe
from roots_compress.results import RunMetrics
from tests.cli.shells import shell

Chain = tuple[Recipe, Path, RunMetrics]

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")


@needs_full
@pytest.mark.parametrize("verb", ["--version", "prune --help", "report RUN", "report RUN --json"])
def test_full_standard_output_is_exit_code_1_and_a_message(verb: str, chain: Chain, tmp_path: Path) -> None:
    ended = shell(f"$ROOTS {verb.replace('RUN', str(chain[1]))} >/dev/full", tmp_path)
    assert ended.returncode == 1
    assert (
        ended.stderr.splitlines()[0] == "error: standard output: cannot be written: No space left on device"
    )
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.parametrize(
    ("verb", "closed"),
    [
        *(("--version", closed) for closed in (">&-", "2>&-", "<&-", "<&- >&- 2>&-")),
        ("report RUN", ">&- 2>/dev/full"),
    ],
)
def test_streams_may_be_closed(verb: str, closed: str, chain: Chain, tmp_path: Path) -> None:
    ended = shell(f"$ROOTS {verb.replace('RUN', str(chain[1]))} {closed}", tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""


@needs_full
@pytest.mark.parametrize(
    "closed", ["2>/dev/full", "2>&-", ">&- 2>&-", ">/dev/full 2>/dev/full", "2>&1 >/dev/full | true"]
)
def test_the_exit_code_of_a_refusal_needs_no_stream(closed: str, tmp_path: Path) -> None:
    ended = shell(f"($ROOTS validate nowhere; echo code $? >{tmp_path}/code) {closed}", tmp_path)
    assert (tmp_path / "code").read_text() == "code 2\n", ended.stderr
    assert "Traceback" not in ended.stderr


@needs_full
@pytest.mark.parametrize(("streams", "code"), [(">/dev/full", 1), (">&- 2>/dev/full", 0)])
def test_an_output_is_kept_though_nothing_can_be_said(streams: str, code: int, tmp_path: Path) -> None:
    ended = shell(f"$ROOTS init {streams}", tmp_path)
    assert ended.returncode == code, ended.stderr
    assert (tmp_path / "recipe.yaml").is_file()


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_what_an_encoding_lacks_is_written_as_an_escape(encoding: str, tmp_path: Path) -> None:
    ended = shell("$ROOTS validate 'é-模型-😀'", tmp_path, PYTHONIOENCODING=encoding)
    assert ended.returncode == 2
    named = {"utf-8": "é-模型-😀", "ascii": "\\xe9-\\u6a21\\u578b-\\U0001f600"}
    # Bytes of Latin-1 are no UTF-8, which this test reads.
    assert named.get(encoding, "\ufffd-\\u6a21\\u578b-\\U0001f600") in ended.stderr


@pytest.mark.parametrize(("verb", "encoding"), [("quantize --help", "ascii"), ("report RUN", "cp1252")])
def test_tables_and_help_hold_in_any_encoding(verb: str, encoding: str, chain: Chain, tmp_path: Path) -> None:
    ended = shell(f"$ROOTS {verb.replace('RUN', str(chain[1]))}", tmp_path, PYTHONIOENCODING=encoding)
    assert ended.returncode == 0, ended.stderr
    assert "quantize" in ended.stdout


def test_a_reader_that_leaves_in_the_middle_hears_no_complaint(chain: Chain, tmp_path: Path) -> None:
    ended = shell(
        f"$ROOTS report {chain[1]} --format html | head -c 1; echo ${{PIPESTATUS[0]}} >&2", tmp_path
    )
    assert ended.stderr in ("1\n", "0\n")  # 0 where the pipe took all before its reader left
