"""The verbs on single models and graphs: import, export, eval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roots_compress.cli.deferred import Deferred
from roots_compress.cli.display.console import say, stdout
from roots_compress.cli.display.output import events, give
from roots_compress.cli.options import DEFAULT_RUN, SOURCE_HELP, CheckpointArgument, named, with_options
from roots_compress.configs.recipe.assignments import Assignment, settings_of
from roots_compress.errors import InputError

if TYPE_CHECKING:
    from roots_compress.configs.recipe.schema import Recipe
    from roots_compress.data.documents import TextSplit

OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write; must not exist.")]


def import_(
    source: Annotated[Path, typer.Argument(metavar="SRC", help=SOURCE_HELP, callback=named)],
    out: OutOption,
) -> None:
    """Write a model, or a LoRA adapter with its base, as a checkpoint of this program."""
    from roots_compress.checkpoints.inspect import inspect_source
    from roots_compress.run.outputs import new_folder

    info = inspect_source(source)
    with new_folder(out, source=source, size=info.stored_bytes) as partial:
        from roots_compress.checkpoints.checkpoint import load_checkpoint, save_checkpoint
        from roots_compress.evaluation.size import count_parameters

        checkpoint = load_checkpoint(source)
        save_checkpoint(checkpoint, partial)
    parameters, layers = count_parameters(checkpoint.model), checkpoint.model.config.num_hidden_layers
    base = {} if info.adapter is None else {"base": str(info.path)}
    give({"checkpoint": str(out), "parameters": parameters, "layers": layers, **base})
    merged = "".join(f"; the adapter was added to {each}" for each in base.values())
    say(f"{out}: {parameters:,} parameters, {layers} layers{merged}")


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
    give(
        {
            "graph": str(out),
            "bytes": report.graph_bytes,
            "largest_difference": report.largest_difference,
            "obstacles": [*report.obstacles],
        }
    )
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

    @with_options(of_run=options)
    def evaluate(
        *,
        path: Annotated[
            Path,
            typer.Argument(
                metavar="PATH",
                help="A checkpoint, a folder with an ONNX graph, or a stage of a run.",
                callback=named,
            ),
        ],
        tasks: Annotated[
            list[str] | None,
            typer.Option(
                "--tasks",
                metavar="NAMES",
                help="Measure skills instead: cloze, choice, tasks of lm-eval or their YAML files, "
                "separated by commas.",
            ),
        ] = None,
        limit: Annotated[
            int | None, typer.Option("--limit", min=1, help="The most questions of a task of lm-eval.")
        ] = None,
        chat: Annotated[
            bool,
            typer.Option("--chat", help="Ask the questions of lm-eval in the tokenizer's chat template."),
        ] = False,
        device_map: Annotated[
            str | None,
            typer.Option(
                "--device-map",
                metavar="auto|LIMITS",
                help="Spread a checkpoint over GPUs, then memory, then disk, by accelerate: what is free, or "
                "LIMITS such as 0=70GB,1=70GB,cpu=200GB.",
            ),
        ] = None,
        of_run: Sequence[Assignment],
    ) -> None:
        from roots_compress.configs.recipe.growth import evaluation_request
        from roots_compress.configs.recipe.loading import check_paths

        for option, given in (("--limit", limit is not None), ("--chat", chat)):
            if given and tasks is None:
                raise InputError(
                    "is about the questions of tasks, and no task is named",
                    where=option,
                    remedy="Name some with --tasks, or leave it out.",
                )
        with Names("eval", "PATH", options).shown():
            recipe = evaluation_request(settings_of(of_run), path)
            check_paths(recipe)
            if tasks is not None:
                from roots_compress.evaluation.skills.names import require_known

                named = (name.strip() for each in tasks for name in each.split(","))
                tasks = [*dict.fromkeys(name for name in named if name)]
                require_known(tasks, chat=chat)
            from roots_compress.pipeline.preflight import prepare_evaluation

            split = prepare_evaluation(recipe)
            if tasks is not None:
                _print_skills(path, tasks, split, recipe, limit=limit, chat=chat, devices=device_map)
                return
            from roots_compress.evaluation.single import evaluate_artifact
            from roots_compress.progress import bar

            with bar(events(), "quality") as progress:
                task, quality, protocol, interval = evaluate_artifact(
                    path, split, recipe.evaluation, recipe.data.records, devices=device_map, progress=progress
                )
        give({"path": str(path), "task": task.name, "quality": quality, "protocol": asdict(protocol)})
        measured = (metric for metric in task.metrics if metric.name in quality)
        figures = (f"{metric.heading} {quality[metric.name]:.4f}" for metric in measured)
        say(f"{'  '.join(figures)}  ({protocol.tokens:,} tokens of {protocol.text})")
        if interval is not None:
            low, high = interval
            bounds = f"{low:.4f} to {high:.4f}"
            say(f"95% interval of {task.metric.heading}: {bounds}, for other text of the same kind")

    return evaluate


def _print_skills(
    path: Path,
    names: list[str],
    text: TextSplit,
    recipe: Recipe,
    *,
    limit: int | None,
    chat: bool,
    devices: str | None,
) -> None:
    """Measure what a model can do, and print a table of it."""
    from roots_compress.evaluation.skills.measure import measure_skills
    from roots_compress.progress import bar
    from roots_compress.report.table import table_of
    from roots_compress.system.threads import default_threads

    with bar(events(), "skills") as progress:
        found = measure_skills(
            path,
            names,
            text,
            threads=recipe.evaluation.threads or default_threads(),
            seed=recipe.seed,
            progress=progress,
            limit=limit,
            chat=chat,
            devices=devices,
        )
    give({"path": str(path), "chat": chat, "skills": [skill._asdict() for skill in found]})
    rows = [
        (
            *(skill.task, skill.metric, f"{skill.value:.4f}"),
            "" if skill.standard_error is None else f"{skill.standard_error:.4f}",
            str(skill.items),
        )
        for skill in found
    ]
    headings = ("task", "metric", "value", "standard error", "questions")
    stdout().print(table_of("Skills", headings, rows, names=2))


EVALUATE = Deferred(
    "Measure a checkpoint's or a graph's quality: perplexity, accuracy, or what else its task has.",
    _evaluate,
    lambda: "roots-compress eval runs/current/02-quantize --eval-data held-out.txt",
)
