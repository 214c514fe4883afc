"""Commands that the pages spell exist: their verbs and their options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from docs.generate import verbs
from roots_compress.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md"))]
VERBS = dict(verbs(typer.main.get_command(app)))


def commands(text: str) -> list[list[str]]:
    """Return the words of each command of a page, without comments; continued lines count as one."""
    text = re.sub(r" \\\n\s*", " ", text)
    lines = re.findall(r"^[ ]*(?:\$ )?(roots-compress .*)$", text, re.MULTILINE)
    spans = re.findall(r"`(roots-compress [^`]+)`", text)
    return [shlex.split(each, comments=True) for each in (*lines, *spans) if "[OPTIONS]" not in each]


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("docs/log/")])
def test_verbs_and_options_of_the_page_exist(page: str) -> None:
    for _, *words in commands((ROOT / page).read_text(encoding="utf-8")):
        verb = " ".join(words[: 2 if words[0] == "data" else 1])
        if verb.startswith("-"):
            continue
        assert verb in VERBS, f"{page}: {words}"
        own = VERBS[verb].get_params(VERBS[verb].make_context(verb, [], resilient_parsing=True))
        known = {name for each in own for name in (*each.opts, *each.secondary_opts)}
        used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert used <= {*known}, f"{page}: {words}"


@pytest.mark.parametrize("page", PAGES)
def test_lists_are_lists_on_the_site_too(page: str) -> None:
    """Python-Markdown wants a blank line before a list, and four spaces before what is in an item."""
    text = re.sub(
        r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    assert not re.findall(r"^ {1,3}[-*|] .*", text, re.MULTILINE)
    assert not re.findall(r"^(?![-*#|> \d]).+\n(?:[-*]|1\.) .*", text, re.MULTILINE)
