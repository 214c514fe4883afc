"""BOS, EOS and the ids that end a text: the one place where every reader and writer of text gets them.

Packing, perplexity, generation, the texts that models write, and what an export tells other runtimes all ask
here. Whether a text opens with BOS is a property of the tokenizer itself, its post-processor
(`tokenizer.json`). A tokenizer without any says nothing of it: its BOS, if it names one, opens a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.processors import ByteLevel, PostProcessor, TemplateProcessing
from tokenizers.processors import Sequence as ProcessorSequence
from transformers import PreTrainedTokenizerFast

from roots_compress.errors import InputError

TokenIds = int | Sequence[int] | None
"""A setting such as `eos_token_id`, as config.json and generation_config.json hold it."""
Ids = Sequence[int] | NDArray[np.integer]


def opening_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return what opens a text: what the tokenizer's post-processor puts there; without any, its BOS."""
    return _added(tokenizer)[0]


def opening_id(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Return the BOS that opens a text; None where none does."""
    return next(iter(opening_ids(tokenizer)), None)


def closing_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return what the tokenizer itself puts after a text, which no reader of text here adds to a prompt."""
    return _added(tokenizer)[1]


def require_mask(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the id of the token that stands for a hidden one.

    Raises:
        InputError: the tokenizer names none.
    """
    if tokenizer.mask_token_id is None:
        raise InputError(
            "the tokenizer has no mask token, which a masked language model reads in place of a hidden one",
            remedy="Name it as mask_token in the model's tokenizer_config.json.",
        )
    return int(tokenizer.mask_token_id)


def missing_opening(ids: Ids, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return what must be put before a text's ids: nothing where the text spells its BOS out itself.

    Args:
        ids: of the text, without special tokens that it does not spell.
        tokenizer: it decides whether there is a BOS to put.
    """
    opening = opening_ids(tokenizer)
    return [] if list(ids[: len(opening)]) == opening else opening


def missing_ending(ids: Ids, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the EOS that must follow a document's ids; nothing without EOS, or where the text spells it."""
    end = tokenizer.eos_token_id
    return [] if end is None or (len(ids) > 0 and ids[-1] == end) else [end]


def opened(ids: Ids, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return a text's ids as its tokenizer opens them: with one BOS, or with none where it adds none."""
    return [*missing_opening(ids, tokenizer), *ids]


def stop_ids(generation: TokenIds, config: TokenIds, tokenizer: TokenIds) -> tuple[int, ...]:
    """Return the ids that end a generated text; the first source that names any decides.

    As in transformers' `generate`: generation_config.json comes before config.json, which serves where there
    is no such file. A tokenizer's EOS ends the text where neither names an id.

    Args:
        generation: `eos_token_id` of generation_config.json: an id, several, or None.
    """
    for named in (generation, config, tokenizer):
        ids = (named,) if isinstance(named, int) else tuple(dict.fromkeys(named or ()))
        if ids:
            return ids
    return ()


def as_setting(ids: Sequence[int]) -> int | list[int] | None:
    """Return stop ids as `eos_token_id` spells them: one by itself, several as a list."""
    return ids[0] if len(ids) == 1 else list(ids) or None


def open_with_bos(tokenizer: PreTrainedTokenizerFast) -> None:
    """Make a tokenizer put its BOS before each text, if it has one and does not do so yet."""
    bos, backend = tokenizer.bos_token, tokenizer.backend_tokenizer
    silent = _is_silent(backend.post_processor)
    if bos is None or (opening_ids(tokenizer) and not silent):
        return
    template = TemplateProcessing(
        single=[bos, "$A"], pair=[bos, "$A", "$B:1"], special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    backend.post_processor = template if silent else ProcessorSequence([backend.post_processor, template])


def open_with_nothing(backend: Tokenizer) -> None:
    """Make a tokenizer that says nothing of BOS say that it puts nothing before a text."""
    if _is_silent(backend.post_processor):
        # Of all processors the one that changes neither ids nor, told not to trim, offsets.
        backend.post_processor = ByteLevel(trim_offsets=False)


def _added(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer's post-processor puts before and after a text."""
    processor: PostProcessor | None = tokenizer.backend_tokenizer.post_processor
    if processor is None or _is_silent(processor):
        return [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id], []
    processed = processor.process(_one_token())
    text = processed.special_tokens_mask.index(0)
    return processed.ids[:text], processed.ids[text + 1 :]


def _is_silent(processor: PostProcessor | None) -> bool:
    """Whether a post-processor says nothing of BOS: there is none, or the empty one of transformers 5."""
    return processor is None or (
        isinstance(processor, TemplateProcessing) and processor.process(_one_token()).ids == _one_token().ids
    )


@cache
def _one_token() -> Encoding:
    """Return a text of one token, to see what is put around it."""
    return Tokenizer(WordLevel({"x": 0}, unk_token="x")).encode("x", add_special_tokens=False)
