"""Text in, text out: a graph's folder opened with its tokenizer, and a prompt continued piece by piece."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.generation_settings import (
    NOT_DONE,
    GenerationSettings,
    folder_stop_ids,
    generation_document,
)
from roots_compress.checkpoints.inspect import TOKENIZER, TOKENIZER_FILES
from roots_compress.checkpoints.logit_settings import LogitSettings
from roots_compress.checkpoints.tokenizer import load_tokenizer_beside
from roots_compress.data.encoding import library_faults
from roots_compress.data.pairs import Frame
from roots_compress.data.special_tokens import opened, stop_ids
from roots_compress.errors import InputError
from roots_compress.runtime.beams import Beams, beam_search
from roots_compress.runtime.generate import generate
from roots_compress.runtime.logit_processors import UNCHANGED
from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.runtime.onnx.graph_config import EXPORT_AGAIN, home_of
from roots_compress.runtime.onnx.graph_folder import find_graph, graph_files, holds_graph
from roots_compress.runtime.onnx.seq2seq import OnnxSeq2Seq
from roots_compress.runtime.onnx.seq2seq_graph import DECODER_GRAPH
from roots_compress.runtime.protocol import Writer
from roots_compress.runtime.text_stream import TextStream

DEFAULT_NEW_TOKENS = 64


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer beside a graph.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    home = home_of(find_graph(folder))
    if not any((home / name).is_file() for name in TOKENIZER_FILES):
        raise InputError(f"the graph's folder holds no {TOKENIZER}", where=home, remedy=EXPORT_AGAIN)
    return load_tokenizer_beside(home)


@dataclass(frozen=True)
class Wishes:
    """What the files beside a graph ask of generation."""

    stop_tokens: tuple[int, ...]
    """Ids that end a text."""
    settings: LogitSettings
    """What is done to logits."""
    beams: Beams | None
    """How a likeliest text is searched for; None where the likeliest token is taken each time."""
    answer_tokens: int | None
    """The most tokens of an answer, where the files say it."""
    not_done: tuple[str, ...]
    """What else would change the likeliest text, and only other runtimes do: `guidance_scale: 4`."""


def load_wishes(folder: Path, tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> Wishes:
    """Return what generation_config.json, config.json and the tokenizer beside a graph or a checkpoint ask.

    Raises:
        InputError: one of the files cannot be read, or a setting is none.
    """
    home = home_of(find_graph(folder)) if holds_graph(folder) else folder
    document, path = generation_document(home)
    asked = GenerationSettings.read(document, path)
    settings = LogitSettings.read(document, path)
    settings.require_vocabulary(vocab_size, path)
    not_done = (
        f"{key}: {document[key]!r:.100}"
        for key, idle in NOT_DONE.items()
        if document.get(key) not in (None, *idle)
    )
    stops = folder_stop_ids(home, tokenizer, vocab_size)
    return Wishes(stops, settings, _beams(asked), _answer_tokens(asked), tuple(not_done))


def _beams(settings: GenerationSettings) -> Beams | None:
    """Return the search that settings ask for."""
    if (settings.num_beams or 1) == 1:
        return None
    asked = {"length_penalty": settings.length_penalty, "early_stopping": settings.early_stopping}
    given: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    return Beams(settings.num_beams or 1, **given)


def _answer_tokens(settings: GenerationSettings) -> int | None:
    """Return the most tokens of an answer; `max_length` counts the one that it begins with too."""
    if settings.max_new_tokens is not None:
        return max(1, settings.max_new_tokens)
    return None if settings.max_length is None else max(1, settings.max_length - 1)


def open_writer(folder: Path, *, threads: int | None = None) -> OnnxEngine | OnnxSeq2Seq:
    """Check a graph's files and open it to write: a decoder, or an encoder with a decoder.

    Raises:
        InputError: a file is missing or damaged, or the graph is none of these.
    """
    graph, *_others = graph_files(folder)
    return (OnnxSeq2Seq if graph.name == DECODER_GRAPH else OnnxEngine).open(graph, threads=threads)


def require_text(text: str) -> None:
    """Refuse what no tokenizer takes for text.

    Raises:
        InputError: it is no text, or holds half a surrogate pair.
    """
    if not isinstance(text, str):
        raise InputError(f"{text!r:.60} is no text", remedy="Give a string.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text holds half a surrogate pair, which is no character, at {error.start}",
            remedy="Leave it out, or decode the text from the bytes that it was made of.",
        ) from None


def prompt_ids(prompt: str, tokenizer: PreTrainedTokenizerFast, *, continues: bool) -> list[int]:
    """Return a prompt's tokens as a model reads them that goes on from them, or that answers them."""
    require_text(prompt)
    with library_faults():
        ids = tokenizer.encode(prompt, add_special_tokens=False)
    return opened(ids, tokenizer) if continues else Frame.of(tokenizer).around(ids)


def stream_text(
    writer: Writer,
    tokenizer: PreTrainedTokenizerFast,
    prompt: str,
    *,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_tokens: Collection[int] | None = None,
    settings: LogitSettings = UNCHANGED,
    beams: Beams | None = None,
    answer_tokens: int | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """Continue or answer a prompt, yielding text as soon as no further token can change it.

    The pieces together are what decoding prompt and new tokens at once gives behind the prompt. Special
    tokens that the prompt spells out, as a chat template does, are read as such; BOS is put before it where
    the tokenizer adds one and the prompt does not spell it. Generation ends at `stop_tokens`, by default the
    tokenizer's EOS; they are not part of the text. Without `max_new_tokens` it ends after 64, an answer after
    `answer_tokens`, or where the context does. With `beams` the text is searched for, and comes as a whole.
    The other arguments and errors are those of `generate` and of `beam_search`.
    """
    model, tokens = writer.begin(prompt_ids(prompt, tokenizer, continues=writer.continues))
    if stop_tokens is None:
        stop_tokens = stop_ids(None, None, tokenizer.eos_token_id)
    if max_new_tokens is None:
        # A prompt as long as the context, or longer, is for `generate` to take or to refuse.
        usual = DEFAULT_NEW_TOKENS if writer.continues or answer_tokens is None else answer_tokens
        max_new_tokens = max(1, min(usual, model.max_context - len(tokens) + 1))
    if beams is not None:
        found = beam_search(
            model, tokens, beams, max_new_tokens=max_new_tokens, stop_tokens=stop_tokens, settings=settings
        )
        steps: Iterator[Sequence[int | None]] = ([token] for token in found)
    else:
        steps = generate(
            model,
            [tokens],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            stop_tokens=stop_tokens,
            settings=settings,
            seed=seed,
        )

    def pieces() -> Iterator[str]:
        stream = TextStream(tokenizer, tokens)
        for (token,) in steps:
            if token is None or token in stop_tokens:
                break
            if piece := stream.push(token):
                yield piece
        if piece := stream.end():
            yield piece

    return pieces()
