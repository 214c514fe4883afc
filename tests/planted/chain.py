"""One small real chain through the command line: train, distil, prune, quantize, verify."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from typer.testing import CliRunner

from roots_compress.cli.app import app
from tests.chains import ARCHITECTURE, DISTILL, EVALUATION, PRUNE, QUANTIZE, TRAIN, TRAINING, write_text


def carry_out(seed: int) -> int:
    """Carry the chain out; return the exit code of the first command that fails, or 0."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / "text")
        (folder / "recipe.yaml").write_text(json.dumps(_recipe(seed)))
        run = str(folder / "run")
        for arguments in (["run", str(folder / "recipe.yaml"), "--run", run], ["verify", run]):
            result = CliRunner().invoke(app, arguments)
            sys.stdout.write(result.output)
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                raise result.exception  # not an error of ours, which would have no traceback
            if result.exit_code:
                return result.exit_code
    return 0


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
