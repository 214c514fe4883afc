"""Single bits that flip in what was committed."""

from __future__ import annotations

import random
from pathlib import Path

from roots_compress.run.manifest import ManifestError
from roots_compress.run.run_folder import COVERED
from roots_compress.run.run_manifest import run_manifest_faults
from roots_compress.run.stages import STAGE_FOLDER, read_stage, verify


def check_bit_flips(run: Path, *, flips: int, rng: random.Random) -> int:
    """Flip random bits of a finished run, one at a time; return how many were flipped.

    Every file is drawn equally often, so that the small ones are not passed over.

    Raises:
        AssertionError: a flipped bit was not found.
    """
    stages = sorted(path.name for path in run.iterdir() if STAGE_FOLDER.fullmatch(path.name))
    files = [path for stage in stages for path in sorted((run / stage).rglob("*")) if path.is_file()]
    files += [run / name for name in (*COVERED, "manifest.json")]
    assert not any(_faults(run, path, stages) for path in files)
    for number in range(flips):
        path = files[number % len(files)]
        intact = path.read_bytes()
        bit = rng.randrange(8 * len(intact))
        flipped = bytearray(intact)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert _faults(run, path, stages), f"bit {bit} of {path.relative_to(run)}"
        path.write_bytes(intact)
    return flips


def _faults(run: Path, path: Path, stages: list[str]) -> list[str]:
    """Return what `verify` would report of the part that holds a file."""
    top = path.relative_to(run).parts[0]
    if top not in stages:
        return run_manifest_faults(run, COVERED, stages)
    try:
        return verify(read_stage(run / top))
    except ManifestError as error:
        return [str(error)]
