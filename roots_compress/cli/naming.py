"""The names of settings on a command line: the options with which they were, or would be, given."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from roots_compress.configs.recipe.assignments import OPTION, Assignment
from roots_compress.errors import Key, Location, changing_keys

if TYPE_CHECKING:
    from roots_compress.configs.options import FieldOption


class Names:
    """The names that settings have on one command line.

    Args:
        verb: the typed verb; it names its whole stage, and groups of keys.
        source: the model's option, or the argument's name.
        run: the options that set keys of the whole run.
        stage: those that set keys of the verb's stage.
        given: the typed settings of the stage.
    """

    def __init__(
        self,
        verb: str,
        source: str,
        run: Sequence[FieldOption],
        stage: Sequence[FieldOption] = (),
        given: Sequence[Assignment] = (),
    ) -> None:
        self._verb, self._stage, self._given = verb, stage, given
        self._run: dict[Location, str] = {option.key: option.name for option in run} | {("model",): source}

    def shown(self, last_stage: int | None = None) -> AbstractContextManager[None]:
        """Let a RootsError inside the block name the typed options.

        Args:
            last_stage: the verb's stage among the run's; settings of others keep their names. None: there is
                no other whose settings could be at fault.
        """

        def name(key: Key) -> str:
            keys = tuple(part for part in key.path if isinstance(part, str))
            if keys[:1] != ("stages",):
                group = self._run.get(keys[:-1])
                return self._run.get(
                    keys, f"{group} {keys[-1]}" if group else f"{'.'.join(keys)} (of a recipe)"
                )
            of_verb = last_stage is None or key.path[1:2] in ((), (last_stage,))
            return self._of_stage(keys[1:], key.value) if of_verb else key

        return changing_keys(name)

    def _of_stage(self, key: tuple[str, ...], value: object) -> str:
        own = {option.value: option.name for option in self._stage if option.key == key}
        dotted = ".".join(key)
        if value is not None:
            return own.get(value) or f"{own.get(None, dotted)} {value}"
        typed = [
            f"{each.option}{_rest(key, each.key)}"
            for each in self._given
            if key and each.key[: len(key)] == key[: len(each.key)]
        ]
        if typed:
            return ", ".join(typed)
        # A flag cannot be at fault: its only value is valid.
        is_group = any(option.key[: len(key)] == key != option.key for option in self._stage)
        return self._verb if is_group or key == ("kind",) else own.get(None, f"{OPTION} {dotted}")


def _rest(key: Location, group: Location) -> str:
    """Return the meant key of a group that was given as one value."""
    return f" ({'.'.join(map(str, key[len(group) :]))})" if len(key) > len(group) else ""
