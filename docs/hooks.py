"""Lets pages link to files outside `docs/`, such as `../../recipes/ci.yaml`: the site gets a copy of each.

So one link works on the site and where the repository itself is read. A page that would load something from
the network fails the build.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")
COPIED = (*ROOT.glob("recipes/*.yaml"), ROOT / "benchmarks" / "README.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside `docs/` that pages may link to."""
    for path in sorted(COPIED):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn a link that leaves `docs/` into one to the copy, and one from a copy into one to the page."""
    if page.file.src_uri.startswith("benchmarks/"):
        return markdown.replace("](../docs/", "](../")
    depth = page.file.src_uri.count("/")
    return re.sub(rf"\]\(((?:\.\./){{{depth}}})\.\./(recipes|benchmarks)/", r"](\1\2/", markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that loads anything from elsewhere."""
    if found := LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads from the network: {found[0]:.200}")
    return output
