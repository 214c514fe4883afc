"""The windows of an optimizer step for each process.

A step reads `accumulation` micro-batches of `batch_size` windows. Whole micro-batches are distributed over
the processes; if there are more processes than micro-batches, each micro-batch is cut into equal parts. So
any number of processes reads the same windows in a step, and each holds at most `batch_size` at a time.
"""

from __future__ import annotations

from roots_compress.configs.training import TrainingConfig, parts_of_micro_batch
from roots_compress.errors import InputError, Key
from roots_compress.system.launched import launched


def team_size(config: TrainingConfig, *, whole: bool = False) -> int:
    """Return how many processes a training is for.

    Args:
        whole: whether a micro-batch must be read by one process.

    Raises:
        InputError: they cannot share a step evenly, or another number was started.
    """
    here = launched()
    size = config.processes or (1 if here is None else here.size)
    if here is not None and size != here.size:
        raise InputError(
            f"is {size}, but torchrun started {here.size}",
            where=Key("processes"),
            remedy="Leave it out, or start as many.",
        )
    parts = parts_of_micro_batch(size, config.batch_size, config.accumulation)
    if parts is None:
        raise InputError(config.sharing_fault(size), where=Key("processes"))
    if whole and parts > 1:
        raise InputError(
            f"{size} processes would cut micro-batches, and this training needs them whole",
            where=Key("processes"),
            remedy=f"Use an accumulation that {size} divides, with a lower batch_size.",
        )
    return size


def windows_of(config: TrainingConfig, step: int, *, rank: int, size: int) -> list[range]:
    """Return a process's micro-batches in a step, as numbers of windows.

    Windows are counted from the start of training, over all epochs.
    """
    batch, count = config.batch_size, config.accumulation
    parts = parts_of_micro_batch(size, batch, count)
    assert parts is not None
    each, length = count * parts // size, batch // parts
    hand, part = divmod(rank, parts)
    starts = ((step * count + hand * each + index) * batch + part * length for index in range(each))
    return [range(start, start + length) for start in starts]
