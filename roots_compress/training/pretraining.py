"""Pre-training of an encoder: a weighted sum of losses on masked tokens, pairs of text, and replaced tokens.

Shape legend: B windows, T tokens in a window, N masked positions of a batch, P positions of text, W hidden
size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roots_compress.configs.train import ObjectiveConfig
from roots_compress.data.masking import MaskedWindows
from roots_compress.data.sentence_pairs import SentencePairs
from roots_compress.data.windows import IGNORED_LABEL
from roots_compress.families.encoder import encoder_spec
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import RootsForMaskedLM
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec, Norm
from roots_compress.training.batches import Batch
from roots_compress.training.objective import Loss, Objective, cross_entropy

PRIME = 1_000_003


class Pretraining(Objective):
    """A weighted sum of losses of an encoder.

    Hidden tokens (Devlin et al. 2019, BERT): the cross-entropy of what was there. Pairs (the same): whether
    the second part of a pair follows the first, told from the state of the pair's first token. Replaced
    tokens (Clark et al. 2020, ELECTRA): a small masked language model, trained along by its own loss, fills
    the hidden places with what it draws; the encoder tells of each token whether it is another one than was
    there. The heads for pairs and replaced tokens, and the generator, belong to the objective and end with
    the training.

    The losses of pairs and of replaced tokens are means over a batch's pairs and text; accumulated batches
    weigh them by their hidden tokens, of which windows of one length have nearly the same number.

    Args:
        windows: in the order of a batch's rows, each with a token to say.
        seed: draws the weights of heads and generator, and the replaced tokens.
    """

    def __init__(
        self, config: ObjectiveConfig, windows: MaskedWindows, spec: ModelSpec, *, seed: int
    ) -> None:
        super().__init__()
        self._weights, self._seed = config, seed
        # Means over windows, and draws for a batch, are those of whole micro-batches.
        self.whole_micro_batches = config.whole_micro_batches
        self._maskable_NT = torch.from_numpy(windows.maskable)
        if isinstance(windows, SentencePairs):
            self._follows_NT = torch.from_numpy(windows.follows)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if config.nsp:
                dense = nn.Linear(spec.width, spec.width)
                self.pairs = nn.Sequential(dense, nn.Tanh(), nn.Linear(spec.width, 2))
            if config.rtd:
                self.replaced = nn.Sequential(
                    nn.Linear(spec.width, spec.width), nn.GELU(), nn.Linear(spec.width, 1)
                )
                self.generator = RootsForMaskedLM(RootsConfig(spec=generator_spec(spec, config.generator)))

    def extra_repr(self) -> str:
        """Return what a training depends on: weights and seed."""
        return f"{self._weights!r}, seed={self._seed}"

    def forward(self, model: RootsWithHead, batch: Batch) -> Loss:
        """Return the weighted sum of a batch's losses."""
        rows = torch.tensor(batch.rows)
        reading: dict[str, Any] = {
            "segment_ids": batch.segment_ids_BT,
            "token_type_ids": batch.token_types_BT,
        }
        hidden_BTW = model.model(input_ids=batch.input_ids_BT, **reading).last_hidden_state
        masked, shown = cross_entropy(model, hidden_BTW, batch)
        total, parts = self._weights.mlm * masked, {"cross_entropy": shown}
        if self._weights.nsp:
            follows_BT = self._follows_NT[rows].to(hidden_BTW.device)
            begins_BT = follows_BT != IGNORED_LABEL
            pairs = F.cross_entropy(self.pairs(hidden_BTW[begins_BT]).float(), follows_BT[begins_BT])
            total, parts["pairs"] = total + self._weights.nsp * pairs, pairs.detach()
        if self._weights.rtd:
            generated, parts["generator"], filled_BT = self._filled(batch, reading)
            text_BT = torch.where(batch.scored_BT, batch.targets_BT, batch.input_ids_BT)
            states_BTW = model.model(input_ids=filled_BT, **reading).last_hidden_state
            places_BT = self._maskable_NT[rows].to(states_BTW.device)
            is_other_P = (filled_BT != text_BT)[places_BT]
            logits_P = self.replaced(states_BTW[places_BT])[:, 0].float()
            replaced = F.binary_cross_entropy_with_logits(logits_P, is_other_P.float())
            total, parts["replaced"] = total + generated + self._weights.rtd * replaced, replaced.detach()
        return Loss(total, parts)

    def _filled(self, batch: Batch, reading: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the generator's loss, with gradients and without, and its filled text, `BT`."""
        hidden_BTW = self.generator.model(input_ids=batch.input_ids_BT, **reading).last_hidden_state
        loss, shown = cross_entropy(self.generator, hidden_BTW, batch)
        with torch.no_grad():
            logits_NV = self.generator.project(hidden_BTW[batch.scored_BT]).float()
            # Sampled on the CPU, by the batch's index, so that a resumed training samples the same.
            source = torch.Generator().manual_seed((self._seed * PRIME + batch.first) % (1 << 63))
            noise_NV = torch.rand(logits_NV.shape, generator=source).clamp_min(1e-20).to(logits_NV.device)
            drawn_N = (logits_NV - (-noise_NV.log()).log()).argmax(dim=-1)  # Sampling by the Gumbel trick.
            filled_BT = batch.input_ids_BT.clone()
            filled_BT[batch.scored_BT] = drawn_N
        return loss, shown, filled_BT


def generator_spec(spec: ModelSpec, share: float) -> ModelSpec:
    """Return a masked language model with the same layers, vocabulary and positions, but narrower."""
    attention = spec.attentions()[0]
    channels = max(op.channels for _, op in spec.blocks() if isinstance(op, Mlp))
    heads = max(1, round(attention.heads * share))
    assert spec.embeddings.positions is not None
    return encoder_spec(
        vocabulary=spec.embeddings.vocabulary,
        width=heads * attention.head_dim,
        layers=len(spec.layers),
        heads=heads,
        channels=max(1, round(channels * share)),
        activation="gelu",
        norm=spec.embeddings.norm or Norm(kind="layer_norm"),
        positions=spec.embeddings.positions,
        token_types=spec.embeddings.token_types,
        head=spec.head,
        tied=True,
    )
