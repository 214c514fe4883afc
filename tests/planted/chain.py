"""One small real chain through the command line: train, distil, prune, quantize, verify."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from typer.testing import CliRunner

from roots_compress.cli.app import app
from roots_compress.errors import RootsError
from tests.chains import ARCHITECTURE, DISTILL, EVALUATION, PRUNE, QUANTIZE, TRAIN, TRAINING, write_text


def carry_out(seed: int) -> RootsError | None:
    """Carry the chain out; return the error that ends a command, None where all goes well."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / "text")
        (folder / "recipe.yaml").write_text(json.dumps(_recipe(seed)))
        run = str(folder / "run")
        for arguments in (["run", str(folder / "recipe.yaml"), "--run", run], ["verify", run]):
            result = CliRunner().invoke(app, arguments)
            sys.stdout.write(result.output)
            if result.exception is not None:
                return _cause(result.exception)
    return None


def _cause(error: BaseException) -> RootsError:
    """Return the package's error that led to this one; raise this one where there is none."""
    found: RootsError | None = None
    cause: BaseException | None = error
    while cause is not None:
        found, cause = cause if isinstance(cause, RootsError) else found, cause.__context__
    if found is None:
        raise error
    return found


def _recipe(seed: int) -> dict[str, object]:
    """Return a recipe whose models learn something, with heads to cut and a setting that is no default."""
    architecture = {**ARCHITECTURE, "num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 500.0}
    training = {**TRAINING, "steps": 30, "learning_rate": 1e-2, "checkpoint_every": 15}
    return {
        "name": "planted",
        "seed": seed,
        "data": {"train": ["text"], "eval_fraction": 0.25},
        "evaluation": EVALUATION,
        "stages": [
            {**TRAIN, "architecture": architecture, "training": training},
            {**DISTILL, "training": training},
            {**PRUNE, "head_ratio": 0.5},
            QUANTIZE,
        ],
    }
