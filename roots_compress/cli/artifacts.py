"""The verbs on single models and graphs: import, export, eval, bench, generate."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from roots_compress.cli.console import say, stderr, stdout, tell, write_pieces
from roots_compress.cli.deferred import Deferred
from roots_compress.cli.options import DEFAULT_RUN, CheckpointArgument, with_options
from roots_compress.configs.recipe.assignments import Assignment, settings_of
from roots_compress.errors import InputError, printable
from roots_compress.system.threads import MOST_THREADS

if TYPE_CHECKING:
    from rich.table import Table

    from roots_compress.evaluate.speed import Speeds
    from roots_compress.tasks.base import Task

OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write; must not exist.")]
_UNDECODED = re.compile("[\ud800-\udfff]")
THREADS_HELP = "Threads. Default: the physical cores available."
GraphArgument = Annotated[
    Path, typer.Argument(metavar="GRAPH", help="A folder with an ONNX graph, or a stage folder of a run.")
]


def import_(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A Hugging Face or ROOTS directory, or a GGUF file.")
    ],
    out: OutOption,
) -> None:
    """Bring a model of another family into a ROOTS checkpoint."""
    from roots_compress.checkpoints.inspect import inspect_source
    from roots_compress.run.outputs import new_folder

    info = inspect_source(source)
    with new_folder(out, source=source, size=info.stored_bytes) as partial:
        from roots_compress.checkpoints.checkpoint import load_checkpoint, save_checkpoint
        from roots_compress.evaluate.size import count_parameters

        checkpoint = load_checkpoint(source)
        save_checkpoint(checkpoint, partial)
    say(
        f"{out}: {count_parameters(checkpoint.model):,} parameters, "
        f"{checkpoint.model.config.num_hidden_layers} layers"
    )


def export(
    out: OutOption,
    checkpoint: CheckpointArgument = None,
    run: Annotated[
        Path, typer.Option("--run", metavar="DIR", help="The run whose newest checkpoint is taken.")
    ] = DEFAULT_RUN,
    portable: Annotated[
        bool,
        typer.Option("--portable", help="Use standard ONNX operators, for other runtimes than ONNX Runtime."),
    ] = False,
) -> None:
    """Export a checkpoint to an ONNX graph, checked against it before it is kept."""
    from roots_compress.run.outputs import new_folder
    from roots_compress.run.stages import newest_checkpoint

    source = checkpoint or newest_checkpoint(run)
    from roots_compress.checkpoints.inspect import inspect_source

    size = inspect_source(source).stored_bytes
    with new_folder(out, source=source, size=size) as partial:
        from roots_compress.checkpoints.checkpoint import load_checkpoint
        from roots_compress.configs.export import ExportConfig
        from roots_compress.export.exporter import export_checkpoint

        loaded, config = load_checkpoint(source), ExportConfig(portable=portable)
        report = export_checkpoint(loaded, partial, config, release=True)
    say(
        f"{out}: {report.graph_bytes / 1e6:.2f} MB, "
        f"agrees with the checkpoint within {report.largest_difference:.1e}"
    )
    for obstacle in report.obstacles:
        say(obstacle)


def _evaluate() -> Callable[..., None]:
    """Return the verb `eval`: its options say what is measured, and on which text."""
    from roots_compress.cli.naming import Names
    from roots_compress.configs.options import options_of
    from roots_compress.configs.recipe.schema import Recipe

    options = [option for option in options_of(Recipe) if option.key != ("device",)]

    @with_options(text=options)
    def evaluate(
        path: Annotated[
            Path,
            typer.Argument(
                metavar="PATH", help="A checkpoint, a folder with an ONNX graph, or a stage of a run."
            ),
        ],
        text: Sequence[Assignment],
    ) -> None:
        from roots_compress.configs.recipe.growth import evaluation_request
        from roots_compress.configs.recipe.loading import check_paths

        with Names("eval", "PATH", options).shown():
            recipe = evaluation_request(settings_of(text), path)
            check_paths(recipe)
            from roots_compress.pipeline.preflight import prepare_evaluation

            split = prepare_evaluation(recipe)
            from roots_compress.evaluate.single import evaluate_artifact
            from roots_compress.progress import bar

            with bar(stderr(), "quality") as progress:
                task, quality, protocol = evaluate_artifact(
                    path, split, recipe.evaluation, recipe.data.records, progress=progress
                )
        measured = (metric for metric in task.metrics if metric.name in quality)
        figures = (f"{metric.heading} {quality[metric.name]:.4f}" for metric in measured)
        say(f"{'  '.join(figures)}  ({protocol.tokens:,} tokens of {protocol.text})")

    return evaluate


EVALUATE = Deferred(
    "Measure a checkpoint's or a graph's quality: perplexity, accuracy, or what else its task has.", _evaluate
)


def bench(
    graphs: Annotated[
        list[Path], typer.Argument(metavar="GRAPH", help="Folders with ONNX graphs, or stages of runs.")
    ],
    context: Annotated[
        list[int] | None,
        typer.Option(
            "--context",
            min=1,
            metavar="TOKENS",
            help="Length of a context; repeatable. Default: 128, 512.",
        ),
    ] = None,
    decode_tokens: Annotated[
        int, typer.Option("--decode-tokens", min=1, help="Tokens decoded in a timing, where models decode.")
    ] = 16,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Timings, interleaved between the graphs.")
    ] = 5,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, max=MOST_THREADS, help=THREADS_HELP)
    ] = None,
) -> None:
    """Time graphs of one task, interleaved in one run: prefill and decoding, or an encoder's reading."""
    from roots_compress.evaluate.speed import measure_speed
    from roots_compress.progress import bar
    from roots_compress.runtime.graph_folder import find_graph
    from roots_compress.system.threads import default_threads
    from roots_compress.tasks.registry import task_of_graph

    if len({*graphs}) < len(graphs):
        twice = next(graph for index, graph in enumerate(graphs) if graph in graphs[:index])
        raise InputError("the graph is named twice", where=twice, remedy="Name each once.")
    with bar(stderr(), "timing") as progress:
        results = measure_speed(
            {str(graph): graph for graph in graphs},
            contexts=context or (128, 512),
            decode_tokens=decode_tokens,
            repeats=repeats,
            threads=threads or default_threads(),
            progress=progress,
        )
    stdout().print(_speed_table(results, task_of_graph(find_graph(graphs[0]))))
    measured = sorted(
        {speed.context for figures in results.values() for each in figures.values() for speed in each}
    )
    if beyond := sorted({*(context or ())} - {*measured}):
        listed = ", ".join(f"{each:,}" for each in beyond)
        say(f"{listed} tokens do not fit every model's context: {measured[-1]:,} were measured instead.")


def _speed_table(results: Mapping[str, Speeds], task: Task[Any]) -> Table:
    """Return the speeds of a task's graphs by name, each beside its ratio to the first graph's."""
    from rich.table import Table

    units = f"{task.workload.unit}s"
    words = {workload.phase: workload.words for workload in task.workloads}
    table = Table(title=f"{units} a second: median (low to high)")
    for heading in ("graph", "phase", "context", f"{units}/s", "ratio to the first"):
        table.add_column(heading, justify="left" if heading in ("graph", "phase") else "right")
    first = next(iter(results.values()))
    for name, figures in results.items():
        for phase, own in figures.items():
            for speed, base in zip(own, first[phase], strict=True):
                table.add_row(
                    escape(printable(name)),
                    words[phase],
                    str(speed.context),
                    f"{speed.median:.1f} ({speed.low:.1f} to {speed.high:.1f})",
                    f"{speed.median / base.median:.2f}x",
                )
    return table


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
            help="Most tokens to add. Default: 64, or as many as the context has left.",
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
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, max=MOST_THREADS, help=THREADS_HELP)
    ] = None,
) -> None:
    """Write on from a prompt with an exported graph, or answer it with an encoder-decoder's."""
    if temperature == 0 and (top_k is not None or top_p is not None):
        raise InputError(
            "the likeliest token is taken each time, so that there is nothing to sample from",
            where="--top-k" if top_k is not None else "--top-p",
            remedy="Give a --temperature above 0, such as 0.8.",
        )
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(
            f"must be above 0 and at most 1, not {top_p}", where="--top-p", remedy="Give a value such as 0.9."
        )
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
        seed=seed,
    )
    write_pieces(chain([prompt] if engine.continues and not chat else [], pieces, ["\n"]))


def _typed_text(text: str, option: str) -> str:
    """Return an argument as text; in a locale without UTF-8, Python leaves its bytes undecoded.

    Raises:
        InputError: the bytes are not UTF-8.
    """
    try:
        return text if not _UNDECODED.search(text) else os.fsencode(text).decode("utf-8")
    except UnicodeError:
        raise InputError("is not UTF-8 text", where=option, remedy="Type it in a UTF-8 terminal.") from None
