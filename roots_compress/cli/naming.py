"""Faults of a recipe's keys, told in the options that set them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from roots_compress.cli.options import OptionGroup, RunOptions
from roots_compress.errors import RootsError

# Places as `recipe.location.dotted` writes them. A key without a dot is a word: only `where` may be one.
_STAGE = re.compile(r"stages\[\d+\](?:\.([a-z_0-9.]*[a-z_0-9]))?")
_RUN = re.compile(r"((?:data|evaluation)\.[a-z_]+)(?:\[\d+\])?|^  (seed|device)(?=: )", re.MULTILINE)


@contextmanager
def naming_options(verb: str, groups: Sequence[OptionGroup] = ()) -> Iterator[None]:
    """Let a RootsError inside the block name options where it names keys.

    Args:
        verb: the verb that was typed, which stands for its stage as a whole.
        groups: the options that set keys of the verb's stage, as they were typed. A key without an option is
            set by `--set`; of a group of keys, the options that were typed are named.
    """
    of_run = {sets.key: option for _, option, sets in RunOptions.declared()}
    of_run["model"] = "--teacher" if verb == "distill" else "CKPT"
    of_stage = {sets.key: option for group in groups for _, option, sets in group.declared()}
    typed = [(option, key) for group in groups for option, key, _ in group.given()]

    def of_verb(place: re.Match[str]) -> str:
        # Every stage before the verb's was found right when it was made.
        key = place[1]
        if not key or any(other.startswith(f"{key}.") for other in of_stage):
            return ", ".join(option for option, of in typed if key and of.startswith(f"{key}.")) or verb
        return of_stage.get(key, f"--set {key}")

    def of_whole_run(place: re.Match[str]) -> str:
        if place[2]:
            return f"  {of_run[place[2]]}"
        return of_run.get(place[1], f"{place[1]} (of a recipe)")

    def told(text: str) -> str:
        return _RUN.sub(of_whole_run, _STAGE.sub(of_verb, text))

    try:
        yield
    except RootsError as error:
        error.message = told(error.message)
        error.where = error.where and of_run.get(error.where, told(error.where))
        error.remedy = error.remedy and told(error.remedy)
        raise
