"""Languages that a translator's tokenizer tells apart.

Each text begins or ends with the token of its own; or targets are cut into other tokens than sources.
"""

from __future__ import annotations

import copy

from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from roots_compress.data.special_tokens import closing_ids, opening_ids
from roots_compress.errors import InputError, did_you_mean, recipe_key

TARGET_LANGUAGE = "tgt_lang"
"""Under this name a tokenizer's settings keep the token of the targets' language, as transformers' do."""

_TARGETS = "target_tokenizer"


def set_target_tokenizer(tokenizer: PreTrainedTokenizerFast, target: PreTrainedTokenizerFast) -> None:
    """Give a tokenizer of sources another one for targets, with the same ids of the same tokens."""
    setattr(tokenizer, _TARGETS, target)


def target_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Return the tokenizer of targets: the one that was set, or else that of sources."""
    target: PreTrainedTokenizerFast = getattr(tokenizer, _TARGETS, tokenizer)
    return target


def language_of(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Return the token of the sources' language; None if texts have no such token."""
    plain = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id}
    others = [each for each in (*opening_ids(tokenizer), *closing_ids(tokenizer)) if each not in plain]
    return others[0] if len(others) == 1 else None


def target_frame(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Return the tokens before and after a target: as around a source, in the targets' language.

    Raises:
        InputError: the tokenizer has languages, and nothing names that of the targets.
    """
    frame, language = (opening_ids(tokenizer), closing_ids(tokenizer)), language_of(tokenizer)
    if language is None:
        return frame
    named = tokenizer.init_kwargs.get(TARGET_LANGUAGE)
    if named is None:
        raise InputError(
            "the model translates between languages, and nothing names the one of the targets",
            where=recipe_key("data", "target_language"),
            remedy="Set it to a code that the tokenizer knows, such as deu_Latn, de_DE or de.",
        )
    target = _token(tokenizer, str(named), "target_language")
    opening, closing = ([target if each == language else each for each in side] for side in frame)
    return opening, closing


def translating(tokenizer: PreTrainedTokenizerFast, source: str, target: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer that reads sources in a language, and targets in another.

    Raises:
        InputError: the tokenizer has no languages, or does not know one of them.
    """
    language = language_of(tokenizer)
    if language is None:
        raise InputError(
            "names a language, and the model's tokenizer tells none apart",
            where=recipe_key("data", "source_language"),
            remedy="Leave source_language and target_language out.",
        )
    told = copy.deepcopy(tokenizer)
    own = _token(tokenizer, source, "source_language")
    told.init_kwargs[TARGET_LANGUAGE] = tokenizer.convert_ids_to_tokens(
        _token(tokenizer, target, "target_language")
    )
    opening, closing = (
        [own if each == language else each for each in side]
        for side in (opening_ids(tokenizer), closing_ids(tokenizer))
    )
    before, after = tokenizer.convert_ids_to_tokens(opening), tokenizer.convert_ids_to_tokens(closing)
    told.backend_tokenizer.post_processor = TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", "$B", *after],
        special_tokens=list(zip((*before, *after), (*opening, *closing), strict=True)),
    )
    return told


def _token(tokenizer: PreTrainedTokenizerFast, code: str, key: str) -> int:
    """Return the token of a language: its code, or that between underscores, as M2M100 has it."""
    # Of those that were added: `de` may be an ordinary piece of words too.
    added = tokenizer.get_added_vocab()
    found = added.get(f"__{code}__", added.get(code))
    if found is None:
        known = [token.strip("_") for token in tokenizer.all_special_tokens]
        raise InputError(
            f"is '{code:.40}', which is no token of the model's tokenizer{did_you_mean(code, known)}",
            where=recipe_key("data", key),
            remedy="Name a code that the tokenizer knows, such as deu_Latn, de_DE or de.",
        )
    return found
