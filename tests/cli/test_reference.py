"""The command reference says what the commands say."""

from __future__ import annotations

from pathlib import Path

from roots_compress.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


def test_the_page_is_what_the_commands_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run: make docs"


def test_every_option_of_a_verb_is_listed() -> None:
    page = reference()
    for option in ("--teacher", "--ratio", "--int8", "--eval-data", "--max-new-tokens", "--fresh"):
        assert f"`{option}" in page
