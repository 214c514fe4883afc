"""Which language a text is in, identified by py3langid where it is installed."""

from __future__ import annotations

from typing import Any

from roots_compress.configs.prepare import LanguageConfig
from roots_compress.data.prepare.filters import Removal
from roots_compress.errors import InputError, recipe_key

MOST_CHARACTERS = 4000
"""Of a text that are looked at."""


class Languages:
    """The languages that are kept.

    Raises:
        InputError: py3langid is not installed, or does not know one of them.
    """

    def __init__(self, config: LanguageConfig) -> None:
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError:
            raise InputError(
                "languages are identified by py3langid, which is not installed",
                where=recipe_key("language", "keep"),
                remedy="Install it: pip install 'roots-compress[languages]'. Or keep all languages.",
            ) from None
        self._config = config
        self._identifier: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        for language in config.keep:
            if language not in self._identifier.labels:
                raise InputError(
                    f"py3langid knows no language '{language}'",
                    where=recipe_key("language", "keep"),
                    remedy=f"Name some of: {', '.join(sorted(self._identifier.labels))}.",
                )

    def fault(self, text: str) -> Removal | None:
        """Return why a text is removed: the probability that it is in one of the languages is too small."""
        found = dict(self._identifier.rank(text[:MOST_CHARACTERS]))
        probability = float(sum(found[language] for language in self._config.keep))
        if probability < self._config.min_probability:
            return Removal("language.keep", probability)
        return None
