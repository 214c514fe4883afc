"""LoRA adapters as peft writes them, and what they make of a base by the papers' formulas."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

WRAPPER = "base_model.model."


class Written:
    """An adapter that is being made, and the model that it makes of its base.

    Args:
        model: of transformers; it is changed as the adapter says.
        folder: where the adapter will lie.
        base: the folder of the base.
    """

    def __init__(self, model: PreTrainedModel, folder: Path, base: Path, **settings: Any) -> None:
        self.model, self.folder = model, folder
        self.settings: dict[str, Any] = {
            "peft_type": "LORA",
            "base_model_name_or_path": os.path.relpath(base, folder),
            "task_type": "CAUSAL_LM",
            "r": 4,
            "lora_alpha": 12,
            "target_modules": ["q_proj"],
            "fan_in_fan_out": False,
            "init_lora_weights": True,
            "bias": "none",
            "loftq_config": {},
            "layer_replication": None,
            "use_dora": False,
            "qalora_group_size": 16,
            **settings,
        }
        self.tensors: dict[str, Tensor] = {}
        self._draws = torch.Generator().manual_seed(1)

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._draws) * 0.2

    def put(self, name: str, tensor: Tensor) -> Tensor:
        self.tensors[WRAPPER + name] = tensor
        return tensor

    def scale(self, rank: int, alpha: float | None = None) -> float:
        alpha = self.settings["lora_alpha"] if alpha is None else alpha
        return alpha / (math.sqrt(rank) if self.settings.get("use_rslora") else rank)

    def low_rank(
        self,
        name: str,
        *,
        rank: int = 4,
        alpha: float | None = None,
        turned: bool = False,
        bias: bool = False,
    ) -> None:
        """Add an update of a linear layer; with `use_dora` one that sets the lengths of what it becomes."""
        module = self.model.get_submodule(name)
        weight = module.weight
        assert isinstance(weight, Tensor)
        matrix = weight.T if turned else weight
        down = self.put(f"{name}.lora_A.weight", self.draw(rank, matrix.shape[1]))
        up = self.put(f"{name}.lora_B.weight", self.draw(matrix.shape[0], rank))
        total = matrix + self.scale(rank, alpha) * up @ down
        if self.settings["use_dora"]:
            lengths = self.put(f"{name}.lora_magnitude_vector", self.draw(len(matrix)) + 2)
            total = lengths[:, None] * total / total.norm(dim=1, keepdim=True)
        weight.data = (total.T if turned else total).detach().contiguous()
        if bias:
            added = self.put(f"{name}.lora_B.bias", self.draw(len(matrix)))
            assert isinstance(module.bias, Tensor)
            module.bias.data += self.scale(rank, alpha) * added

    def table(self, name: str, *, rank: int = 4) -> None:
        """Add an update of an embedding, which becomes a parameter of its own."""
        module = self.model.get_submodule(name)
        assert isinstance(module.weight, Tensor)
        rows, width = module.weight.shape
        down = self.put(f"{name}.lora_embedding_A", self.draw(rank, rows))
        up = self.put(f"{name}.lora_embedding_B", self.draw(width, rank))
        total = module.weight + self.scale(rank) * (up @ down).T
        if self.settings["use_dora"]:
            lengths = self.put(f"{name}.lora_magnitude_vector", self.draw(width) + 2)
            total = lengths * total / total.norm(dim=0)
        module.weight = nn.Parameter(total.detach())

    def whole(self, name: str) -> None:
        """Replace a parameter, which becomes one of its own."""
        module_name, _, part = name.rpartition(".")
        module = self.model.get_submodule(module_name)
        found = getattr(module, part)
        setattr(module, part, nn.Parameter(self.put(name, found.detach() + self.draw(*found.shape))))

    def experts(
        self, name: str, parameter: str, *, wrapped: bool, turned: bool = False, rank: int = 4
    ) -> None:
        """Add updates of one parameter of all experts of a layer, as `target_parameters` asks for.

        Args:
            name: of the experts' module.
            parameter: of it.
            wrapped: whether another update is around this one.
            turned: whether each matrix has its inputs first.
            rank: of each expert.
        """
        stacked = getattr(self.model.get_submodule(name), parameter)
        matrices = stacked.data.mT if turned else stacked.data
        experts, outputs, inputs = matrices.shape
        inner = ".base_layer" if wrapped else ""
        down = self.put(f"{name}{inner}.lora_A.weight", self.draw(experts * rank, inputs))
        up = self.put(f"{name}{inner}.lora_B.weight", self.draw(outputs, rank * experts))
        for expert in range(experts):
            of_expert = [column * experts + expert for column in range(rank)]
            rows = down[expert * rank : (expert + 1) * rank]
            matrices[expert] += self.scale(rank) * up[:, of_expert] @ rows

    def save(self) -> Path:
        """Write the adapter, and return its folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        save_file(tensors, self.folder / "adapter_model.safetensors", metadata={"format": "pt"})
        self.set()
        return self.folder

    def set(self, **settings: Any) -> None:
        """Write the settings, changed so."""
        self.settings |= settings
        (self.folder / "adapter_config.json").write_text(json.dumps(self.settings))
