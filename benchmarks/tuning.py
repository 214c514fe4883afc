"""What tuning a student to answer gains, alone and from a teacher, on the same conversations.

    roots-compress run recipes/quickstart.yaml
    python benchmarks/tuning.py runs/quickstart --out runs/tuning

The quickstart's teacher is tuned first. Then its untuned student is tuned twice, on the same windows in the
same order: on the answers alone, and with what the tuned teacher says of them too. It prints response
perplexities on held-out questions of the built-in set, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from roots_compress.cli.display.lines import Lines
from roots_compress.configs.recipe.loading import parse_recipe
from roots_compress.events import Events
from roots_compress.pipeline.preflight import prepare
from roots_compress.pipeline.runner import run_recipe

CHAT = {"user": {"prefix": "Question: ", "suffix": "\n"}, "assistant": {"prefix": "Answer: "}}


def tuned(model: Path, folder: Path, threads: int | None, **stage: Any) -> tuple[float, float]:
    """Return the response perplexity of a checkpoint before and after a `tune` stage."""
    recipe = parse_recipe(
        {
            "name": folder.name,
            "model": str(model),
            "data": {"chat": CHAT},
            "evaluation": {
                "windows": 48,
                "block_size": 256,
                "contexts": [128],
                "repeats": 1,
                "threads": threads,
            },
            "stages": [{"kind": "tune", **stage}],
        }
    )
    metrics = run_recipe(prepare(recipe, folder), folder, events=Events(Lines(Console(stderr=True))))
    before, after = (row.metrics.quality["response_perplexity"] for row in metrics.stages)
    return before, after


def main() -> None:
    """Tune, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("quickstart", type=Path, help="the run of recipes/quickstart.yaml")
    parser.add_argument("--out", type=Path, required=True, help="where the three runs go")
    parser.add_argument("--steps", type=int, default=200, help="of the student")
    parser.add_argument("--teacher-steps", type=int, default=300)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    learn = {"batch_size": 4, "block_size": 256, "learning_rate": 0.001}
    teacher, student = (arguments.quickstart / f"{row}/checkpoint" for row in ("00-baseline", "01-distill"))

    def run(name: str, model: Path, steps: int, **stage: Any) -> tuple[float, float]:
        training = {**learn, "steps": steps}
        return tuned(model, arguments.out / name, arguments.threads, training=training, **stage)

    rows = {
        "teacher": run("teacher", teacher, arguments.teacher_steps),
        "student alone": run("alone", student, arguments.steps),
        "student, from the teacher": run(
            "taught",
            student,
            arguments.steps,
            teacher=str(arguments.out / "teacher/01-tune/checkpoint"),
        ),
    }
    print(f"{'':28}{'untuned':>10}{'tuned':>10}{'change':>10}")
    for name, (before, after) in rows.items():
        print(f"{name:28}{before:10.2f}{after:10.2f}{after / before - 1:+10.1%}")
    alone, taught = (rows[name][1] for name in ("student alone", "student, from the teacher"))
    print(f"from the teacher, against alone: {taught / alone - 1:+.1%}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
