"""The verb that writes text: `generate`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from roots_compress.cli.display.console import write_pieces
from roots_compress.cli.display.output import give, tell
from roots_compress.cli.options import ThreadsOption
from roots_compress.errors import InputError

_UNDECODED = re.compile("[\ud800-\udfff]")
GraphArgument = Annotated[
    Path, typer.Argument(metavar="GRAPH", help="A folder with an ONNX graph, or a stage folder of a run.")
]


def generate(
    graph: GraphArgument,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="The text to go on from, or to answer.")],
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Ask the prompt in the tokenizer's chat template; write the answer."),
    ] = False,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens",
            min=1,
            help="The most tokens to write. Default: 64, or for an encoder-decoder what "
            "generation_config.json asks; at most as many as the context has left.",
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="0 takes the likeliest token each time.")
    ] = 0.0,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, help="Sample among this many likeliest tokens.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Sample within this probability mass.")
    ] = None,
    beams: Annotated[
        int | None,
        typer.Option(
            "--beams",
            min=1,
            help="Texts continued side by side, of which the likeliest is written. Default: as the folder's "
            "generation_config.json asks, or 1.",
        ),
    ] = None,
    length_penalty: Annotated[
        float | None,
        typer.Option("--length-penalty", help="With beams: above 0 favours longer texts. Default: 1."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of the sampling.")] = 0,
    threads: ThreadsOption = None,
) -> None:
    """Write text with an exported graph: go on from a prompt, or answer it with an encoder-decoder."""
    from roots_compress.configs.options import spelled_option
    from roots_compress.runtime.generate import require_sampling

    require_sampling(temperature, top_k=top_k, top_p=top_p, spelled=spelled_option)
    if beams is not None and beams > 1 and temperature:
        raise InputError(
            "beams search for the likeliest text, and a temperature draws one",
            where="--beams",
            remedy="Leave one of the two out.",
        )
    if not prompt:
        raise InputError("the prompt is empty", remedy="Give it some text: --prompt 'Once upon a time'")
    prompt = _typed_text(prompt, "--prompt")
    from roots_compress.checkpoints.tokenizer import check_vocabulary
    from roots_compress.runtime.beams import Beams
    from roots_compress.runtime.text import load_tokenizer, load_wishes, open_writer, stream_text
    from roots_compress.system.threads import default_threads

    tokenizer = load_tokenizer(graph)
    engine = open_writer(graph, threads=threads or default_threads())
    check_vocabulary(tokenizer, engine.vocab_size, graph)
    if engine.caution is not None:
        tell(engine.caution)
    wishes = load_wishes(graph, tokenizer, engine.vocab_size)
    search = wishes.beams if beams is None else replace(wishes.beams or Beams(), count=beams)
    if length_penalty is not None and (temperature or search is None or search.count == 1):
        raise InputError(
            "has no effect without beams",
            where="--length-penalty",
            remedy="Give --beams 2 or more, and no --temperature.",
        )
    if search is not None and length_penalty is not None:
        search = replace(search, length_penalty=length_penalty)
    if temperature or (search is not None and search.count == 1):
        search = None
    for wish in wishes.not_done:
        tell(f"not done: generation_config.json asks for {wish}, which would change the text")
    if chat:
        from roots_compress.data.chat.rendering import question

        asked = question(prompt, tokenizer)
    pieces = stream_text(
        engine,
        tokenizer,
        asked if chat else prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop_tokens=wishes.stop_tokens,
        settings=wishes.settings,
        beams=search,
        answer_tokens=wishes.answer_tokens,
        seed=seed,
    )
    written: list[str] = []
    begun = [prompt] if engine.continues and not chat else []
    write_pieces(chain(begun, _kept(pieces, written), ["\n"]))
    give({"prompt": prompt, "text": "".join(written)})


def _kept(pieces: Iterable[str], written: list[str]) -> Iterator[str]:
    """Yield pieces, and put each into a list."""
    for piece in pieces:
        written.append(piece)
        yield piece


def _typed_text(text: str, option: str) -> str:
    """Return an argument as text; in a locale without UTF-8, Python leaves its bytes undecoded.

    Raises:
        InputError: the bytes are not UTF-8.
    """
    try:
        return text if not _UNDECODED.search(text) else os.fsencode(text).decode("utf-8")
    except UnicodeError:
        raise InputError("is not UTF-8 text", where=option, remedy="Type it in a UTF-8 terminal.") from None
