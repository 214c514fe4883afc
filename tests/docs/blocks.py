"""The code blocks of a page of Markdown, with what the page's comments say of how tests run them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(
    r"(?:<!-- test:(?P<comment>(?:(?!-->).)*?)-->\s*?\n)?"
    r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    title: str | None
    """The file that the page calls it."""
    text: str
    comment: str
    """What stands before it in `<!-- test: ... -->`."""

    @property
    def runs(self) -> bool:
        """Whether the tests run it; the comment gives the reason where they do not."""
        return not self.comment.startswith("not run")

    @property
    def slow(self) -> bool:
        """Whether only `make test-slow` runs it."""
        return self.comment.startswith("slow")

    def tested_text(self) -> str:
        r"""Return the text as it is run: each line `A => B` of the comment replaces A by B.

        In B, `\n` is a line end.

        Raises:
            AssertionError: the text holds no A.
        """
        text = self.text
        for line in self.comment.splitlines():
            before, arrow, after = line.partition(" => ")
            if arrow:
                assert before in text, f"the block holds no {before!r}:\n{text}"
                text = text.replace(before, after.replace("\\n", "\n"))
        return text


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return [
        Block(found["language"], found["title"], found["text"], (found["comment"] or "").strip())
        for found in BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]
