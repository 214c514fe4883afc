"""Modules that scripts of users import by the names they had before the packages were arranged anew."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

NAMES = {
    "roots_compress.data.config": "roots_compress.configs.data",
    "roots_compress.data.readers": "roots_compress.data.sources.readers",
    "roots_compress.data.records": "roots_compress.data.sources.records",
    "roots_compress.model": "roots_compress.models",
    "roots_compress.model.checkpoint": "roots_compress.checkpoints.checkpoint",
    "roots_compress.model.modeling": "roots_compress.models.modeling",
}
"""The documented ways into the package from Python: old name, and today's."""


class OldNames:
    """Imports a module by an old name as the very module of today's."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to import one of the old names; None for any other."""
        if fullname not in NAMES:
            return None
        # No subclass of importlib.abc.Loader: importing that takes as long as reading all of these modules.
        return ModuleSpec(fullname, self, is_package=fullname == "roots_compress.model")  # type: ignore[arg-type]

    def create_module(self, _spec: ModuleSpec) -> None:
        """Leave it to Python to make the empty one."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of today's name in the place of an empty one."""
        sys.modules[module.__name__] = importlib.import_module(NAMES[module.__name__])


def understand_old_names() -> None:
    """Let the old names be imported from now on."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        # First: the package of today's name would find its own files under the old one, and load them twice.
        sys.meta_path.insert(0, OldNames())
