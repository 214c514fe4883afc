"""The planted bugs, by what they break."""

from __future__ import annotations

from tests.planted.bug import Bug
from tests.planted.bugs import artifacts, compression, figures, inference, models, numbers, training

BUGS: tuple[Bug, ...] = (
    *numbers.BUGS,
    *compression.BUGS,
    *inference.BUGS,
    *artifacts.BUGS,
    *models.BUGS,
    *training.BUGS,
    *figures.BUGS,
)
