"""A model spread over several devices: GPUs, then memory, then disk, by accelerate."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from roots_compress.errors import InputError
from roots_compress.io.atomic import system_errors
from roots_compress.models.blocks.base import Block
from roots_compress.models.heads import RootsWithHead

AUTO, DISK = "auto", "disk"
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
LIMIT = re.compile(rf"(cpu|[0-9]+)=([0-9]+(?:\.[0-9]+)?)({'|'.join(UNITS)})")
OPTION = "--device-map"


def limits_of(text: str) -> dict[int | str, int]:
    """Return how many bytes of weights each device may hold; empty: the free memory of each.

    Args:
        text: `auto`, or limits such as `0=70GB,1=70GB,cpu=200GB`: of GPUs by their numbers, and of memory.

    Raises:
        InputError: it is neither.
    """
    if text == AUTO:
        return {}
    found: dict[int | str, int] = {}
    for each in text.split(","):
        match = LIMIT.fullmatch(each.strip())
        if match is None:
            raise InputError(
                f"is {text!r:.60}, which names no devices",
                where=OPTION,
                remedy="Say auto, or how much each device may hold: 0=70GB,1=70GB,cpu=200GB.",
            )
        device, amount, unit = match.groups()
        found["cpu" if device == "cpu" else int(device)] = int(float(amount) * UNITS[unit])
    for device in found:
        if isinstance(device, int) and device >= torch.cuda.device_count():
            raise InputError(
                f"names GPU {device}, and there are {torch.cuda.device_count()}",
                where=OPTION,
                remedy="Name GPUs by their numbers, from 0 on.",
            )
    return found


class Spread:
    """Places the tensors of a model on devices, as they are read one by one.

    Args:
        limits: as `limits_of` returns them.

    Raises:
        InputError: accelerate is not installed.
    """

    def __init__(self, limits: Mapping[int | str, int]) -> None:
        try:
            import accelerate  # noqa: F401
        except ImportError:
            raise InputError(
                "needs accelerate, which is not installed",
                where=OPTION,
                remedy='Install it: pip install "roots-compress[devices]".',
            ) from None
        self._limits = dict(limits) or None
        self._folder = TemporaryDirectory(prefix="roots-compress-", ignore_cleanup_errors=True)
        self._on_disk: dict[str, Any] = {}
        self._places: dict[str, int | str] = {}

    def over(self, model: RootsWithHead) -> Callable[[str, Tensor], Tensor]:
        """Return a function that places a tensor of a model without storage on its device, and returns it.

        Whole layers go to the first device with room. If that is the disk and it is full, OSError is raised.
        """
        from accelerate import infer_auto_device_map

        self._places = infer_auto_device_map(
            model, max_memory=self._limits, no_split_module_classes=model._no_split_modules
        )
        return self._put

    def _put(self, name: str, tensor: Tensor) -> Tensor:
        parts = name.split(".")
        modules = (".".join(parts[:count]) for count in range(len(parts), -1, -1))
        device = next(self._places[module] for module in modules if module in self._places)
        if device != DISK:
            return tensor.to(device)
        file = Path(self._folder.name, f"{name}.safetensors")
        with system_errors(file):
            save_file({name: tensor.contiguous()}, file)
        self._on_disk[name] = {"safetensors_file": str(file), "weight_name": name}
        return tensor.to("meta")

    def run(self, model: RootsWithHead) -> None:
        """Let each part of a model run on its device; parts on disk are read when they run."""
        from accelerate import dispatch_model
        from accelerate.utils import find_tied_parameters

        if set(self._places.values()) == {"cpu"}:
            return
        for names in find_tied_parameters(model):
            if stored := [self._on_disk[name] for name in names if name in self._on_disk]:
                self._on_disk |= dict.fromkeys(names, stored[0])
        # A block may read the weights of its modules without running them: all of it is read at once.
        blocks = {type(module).__name__ for module in model.modules() if isinstance(module, Block)}
        dispatch_model(
            model,
            self._places,
            offload_dir=self._folder.name,
            offload_index=self._on_disk or None,
            offload_buffers=True,
            preload_module_classes=list(blocks),
        )
        weakref.finalize(model, self._folder.cleanup)
