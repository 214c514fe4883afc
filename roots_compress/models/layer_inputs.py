"""Per-layer embeddings: an extra embedding of the token for each layer (Gemma 3n, Gemma 4).

Shape legend: B batch, T tokens, W hidden size, V vocabulary, L layers, P channels for each layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from roots_compress.models.device import as_multiplied
from roots_compress.models.norm import RMSNorm
from roots_compress.models.quantized import make_embedding, make_linear
from roots_compress.models.spec import LAYER_PROJECTION, LAYER_TABLE, ModelSpec


class LayerInputTables(nn.Module):
    """A table of tokens with channels for all layers, and a projection of the embeddings to as many channels.

    Their sum is multiplied by sqrt(1/2); the projection's part is normed for each layer.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        spec: ModelSpec = config.spec
        wanted = spec.embeddings.layer_inputs
        assert wanted is not None
        self.config, self.channels = config, wanted.channels
        width = spec.layer_input_channels
        self.table = make_embedding(config, LAYER_TABLE, width=width, tied=False)
        self.projection = make_linear(config, LAYER_PROJECTION, spec.width, width, False)
        self.norm = RMSNorm(wanted.channels, eps=wanted.eps)

    def of_layers(self, layers: Sequence[int]) -> dict[str, Tensor]:
        """Return the weights for these layers only, by name, with the norm's."""
        index = torch.tensor(layers, device=self.norm.weight.device)
        table_VLP = self.table.get_parameter("weight").unflatten(1, (-1, self.channels))
        projection_LPW = self.projection.get_parameter("weight").unflatten(0, (-1, self.channels))
        return {
            "table.weight": table_VLP.index_select(1, index).flatten(1),
            "projection.weight": projection_LPW.index_select(0, index).flatten(0, 1),
            "norm.weight": self.norm.weight,
        }

    def keep_layers(self, kept: Sequence[int]) -> None:
        """Cut the channels of all layers but these."""
        weights = self.of_layers(kept)
        self.table = nn.Embedding.from_pretrained(weights["table.weight"].detach(), freeze=False)
        projection_xW = weights["projection.weight"].detach()
        rows, width = projection_xW.shape
        self.projection = nn.Linear(width, rows, bias=False, device="meta")
        self.projection.weight = nn.Parameter(projection_xW)

    def forward(self, tokens_BT: Tensor | None, hidden_BTW: Tensor) -> Tensor:
        """Return the per-layer embeddings of tokens, `BTLP`.

        Args:
            hidden_BTW: the stream before the first layer.

        Raises:
            ValueError: the tokens are not given.
        """
        if tokens_BT is None:
            raise ValueError("a model with per-layer embeddings reads input_ids, not inputs_embeds alone")
        own_BTLP = self.table(tokens_BT).unflatten(-1, (-1, self.channels)) * self.channels**0.5
        made_BTx = self.projection(as_multiplied(hidden_BTW)) * self.config.hidden_size**-0.5
        made_BTLP = self.norm(made_BTx.unflatten(-1, (-1, self.channels)))
        given_BTLP: Tensor = (own_BTLP + made_BTLP) * 0.5**0.5
        return given_BTLP
