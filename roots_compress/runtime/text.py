"""Text in, text out: a graph's folder opened with its tokenizer, and a prompt continued piece by piece."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from roots_compress.data.special_tokens import opened, stop_ids
from roots_compress.errors import InputError
from roots_compress.model.generation_settings import folder_stop_ids
from roots_compress.model.sources import TOKENIZER
from roots_compress.model.tokenizer import load_tokenizer_beside
from roots_compress.runtime.generate import generate
from roots_compress.runtime.graph_folder import find_graph
from roots_compress.runtime.protocol import LanguageModel
from roots_compress.runtime.session import EXPORT_AGAIN


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer beside a graph.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    home = find_graph(folder).parent
    if not (home / TOKENIZER).is_file():
        raise InputError(f"the graph's folder holds no {TOKENIZER}", where=home, remedy=EXPORT_AGAIN)
    return load_tokenizer_beside(home)


def load_stop_ids(folder: Path, tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> tuple[int, ...]:
    """Return the ids that end a text, as the files beside a graph and its tokenizer name them.

    Raises:
        InputError: one of the files cannot be read.
    """
    return folder_stop_ids(find_graph(folder).parent, tokenizer, vocab_size)


def stream_text(
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerFast,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_tokens: Collection[int] | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """Continue a prompt, yielding text as soon as it is whole characters.

    The prompt is opened with BOS where the tokenizer adds one, as in training and evaluation, and the prompt
    does not spell it. Generation ends at `stop_tokens`, by default the tokenizer's EOS; they are not part of
    the text. The other arguments and errors are those of `generate`.
    """
    tokens = opened(tokenizer.encode(prompt, add_special_tokens=False), tokenizer)
    if stop_tokens is None:
        stop_tokens = stop_ids(None, None, tokenizer.eos_token_id)
    steps = generate(
        model,
        [tokens],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop_tokens=stop_tokens,
        seed=seed,
    )

    def decoded(written: list[int]) -> str:
        return str(tokenizer.decode(written, skip_special_tokens=True))

    def pieces() -> Iterator[str]:
        written: list[int] = []
        shown = ""
        for (token,) in steps:
            if token is None or token in stop_tokens:
                break
            written.append(token)
            text = decoded(written)
            # A token may end inside a character, which then reads as a replacement character for now.
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):
                yield text[len(shown) :]
                shown = text
        text = decoded(written)
        if len(text) > len(shown):
            yield text[len(shown) :]

    return pieces()
