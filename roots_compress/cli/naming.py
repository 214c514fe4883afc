"""Faults of settings, told in what was typed to give them: options, and the keys of `--set`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from roots_compress.cli.options import OptionGroup
from roots_compress.configs.data import DataConfig
from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.configs.recipe.assignments import OPTION
from roots_compress.configs.recipe.location import Location, dotted, parse_dotted
from roots_compress.errors import Key, RootsError

# In sentences, a key is told from a path by what stands around it, and by being one. What is quoted is the
# user's own, and stays: it opens where no letter precedes it, which would make it an apostrophe.
_RUN_KEYS = [
    f"{group}.{key}"
    for group, settings in (("data", DataConfig), ("evaluation", EvaluationConfig))
    for key in settings.model_fields
]
_QUOTED = r"(?<!\w)(?P<quote>['\"]).*?(?P=quote)(?!\w)"
_KEY = re.compile(
    rf"{_QUOTED}|(?<![\w./\\-])(?P<key>stages\[\d+\](?:\.[a-z_0-9]+)+|{'|'.join(map(re.escape, _RUN_KEYS))})"
    r"(?!\.?[\w/\\\[-])"
)


class Names:
    """The names that settings have on one command line.

    Args:
        verb: what was typed first; it stands for its stage as a whole, and for groups of keys.
        run: the options that set keys of the whole run.
        groups: the options that set keys of the verb's stage.
        assignments: what was given by `--set`, each `KEY=VALUE`.
    """

    def __init__(
        self,
        verb: str,
        run: OptionGroup,
        groups: Sequence[OptionGroup] = (),
        assignments: Sequence[str] = (),
    ) -> None:
        self._verb = verb
        self._run = {sets.key: option for _, option, sets in run.declared()}
        self._run["model"] = {"distill": "--teacher", "eval": "PATH"}.get(verb, "CKPT")
        self._typed = [(option, key) for group in groups for option, key, _ in group.given()]
        self._assigned = [assignment.partition("=")[0] for assignment in assignments]
        # Not flags: they give one right value, so that a wrong one was not given by them.
        self._declared = {
            sets.key: option for group in groups for _, option, sets in group.declared() if sets.to is None
        }

    def place(self, location: Location) -> str:
        """Return the name of a setting; of stages, the verb's alone is known."""
        if location[:1] == ("stages",):
            return self._of_stage(dotted(tuple(part for part in location[2:] if isinstance(part, str))))
        key = dotted(tuple(part for part in location if isinstance(part, str)))
        return self._run.get(key, f"{key} (of a recipe)")

    def _of_stage(self, key: str) -> str:
        given = [*self._typed, *((f"{OPTION} {other}", other) for other in self._assigned)]
        typed = [f"{option}{_rest(key, other)}" for option, other in given if key and _overlap(key, other)]
        if typed:
            return ", ".join(typed)
        if not key or any(other.startswith(f"{key}.") for other in self._declared):
            return self._verb
        return self._declared.get(key, f"{OPTION} {key}")

    @property
    def options(self) -> dict[str, str]:
        """The options that were typed, by the keys of the stage that they set."""
        return {key: option for option, key in self._typed}

    @contextmanager
    def told(self, last_stage: int | None = None) -> Iterator[None]:
        """Let a RootsError inside the block name what was typed.

        Args:
            last_stage: the verb's stage among the run's; settings of others keep their names. None: of none.
        """

        def name(key: str) -> str:
            location = parse_dotted(key)
            if not location or (location[0] == "stages" and location[1:2] != (last_stage,)):
                return key
            return self.place(location)

        def replaced(match: re.Match[str]) -> str:
            return name(match["key"]) if match["key"] else match[0]

        try:
            yield
        except RootsError as error:
            if isinstance(error.where, Key):
                error.where = name(error.where)
            error.message = _KEY.sub(replaced, error.message)
            error.remedy = error.remedy and _KEY.sub(replaced, error.remedy)
            raise


def _rest(key: str, other: str) -> str:
    """Return which key of a group is meant, where the group was given as a whole."""
    return f" ({key.removeprefix(f'{other}.')})" if key.startswith(f"{other}.") else ""


def _overlap(key: str, other: str) -> bool:
    """Whether one is the other, or a group that holds it."""
    return key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")
