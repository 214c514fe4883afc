"""Classifiers are cut by what their predictions of labels lose, at the texts' first positions alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from roots_compress.calibration.gradients import observe_gradients
from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.prune import RecoveryConfig, TargetConfig
from roots_compress.configs.training import TrainingConfig
from roots_compress.data.documents import Document, TextSplit
from roots_compress.data.labelled import pack_labelled
from roots_compress.data.windows import PackedWindows
from roots_compress.errors import InputError
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.resizing import keep_layers
from roots_compress.stages.prune.sensitivity import layer_divergences
from tests.encoders import encoder_tokenizer, tiny_encoder
from tests.stages.prune.test_stage import run

WORDS = ["fox", "dog", "model", "tokens", "guesses", "next", "slings", "arrows"]
DOCUMENTS = tuple(
    Document(Document.plain(" ".join(WORDS[number % 7 :][: number % 5 + 1])).spans, number % 3)
    for number in range(60)
)
NAME = "model.layers.1.mlp.down_proj"


def windows() -> PackedWindows:
    return pack_labelled(DOCUMENTS, encoder_tokenizer(), 32, seed=0)


def texts_of(packed: PackedWindows) -> list[tuple[Tensor, int]]:
    """Return each text of the windows by itself, `(1, T)`, and its target."""
    found = []
    for ids_T, targets_T, segments_T in zip(
        packed.input_ids, packed.targets, packed.segment_ids, strict=True
    ):
        for number in range(segments_T.max() + 1):
            own = segments_T == number
            found.append((torch.from_numpy(ids_T[own])[None], int(targets_T[own][0])))
    return found


def labelled_loss(model: RootsWithHead, packed: PackedWindows) -> Tensor:
    logits = torch.cat([model(ids_1T).logits for ids_1T, _ in texts_of(packed)])
    return F.cross_entropy(logits, torch.tensor([target for _, target in texts_of(packed)]), reduction="sum")


def test_gradients_are_those_of_every_text_by_itself() -> None:
    model, packed = tiny_encoder("classification"), windows()[:2]
    found = torch.zeros_like(model.get_parameter(f"{NAME}.weight"))

    def observer(_name: str, inputs_TI: Tensor, gradient_TO: Tensor) -> None:
        found.add_(gradient_TO.T @ inputs_TI)

    observe_gradients(model, packed, [NAME], observer)
    labelled_loss(model, packed).backward()
    expected = model.get_parameter(f"{NAME}.weight").grad
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_layer_counts_by_what_the_labels_move_without_it() -> None:
    model, packed = tiny_encoder("classification", layers=3), windows()[:3]
    found = layer_divergences(model, packed, device="cpu")

    def predictions(model: RootsWithHead) -> Tensor:
        return torch.cat([model(ids_1T).logits for ids_1T, _ in texts_of(packed)]).log_softmax(-1)

    before = predictions(model)
    for index, divergence in enumerate(found):
        without = tiny_encoder("classification", layers=3)
        keep_layers(without, [other for other in range(3) if other != index])
        expected = float((before.exp() * (before - predictions(without))).sum(-1).mean())
        assert divergence == pytest.approx(expected, rel=1e-4)


RECOVERY = RecoveryConfig(training=TrainingConfig(steps=2, block_size=32))
CUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "taylor": ("classification", {"ratio": 0.25, "score": "taylor"}),
    "layers": ("classification", {"layer_ratio": 0.5}),
    "per layer": ("masked_lm", {"ratio": 0.25, "head_ratio": 0.25, "uniform": False}),
    "target": ("classification", {"target": TargetConfig(parameters=0.6), "uniform": False}),
    "recovery": ("classification", {"ratio": 0.25, "recovery": RECOVERY}),
}


@pytest.mark.parametrize(("kind", "settings"), CUTS.values(), ids=CUTS.keys())
def test_what_goes_by_predictions_goes_by_the_encoder_s(
    tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    checkpoint = Checkpoint(tiny_encoder(kind), encoder_tokenizer())
    text = TextSplit(DOCUMENTS * 4, (), "tiny")
    pruned = run(tmp_path, checkpoint, text, **settings).checkpoint.model
    assert pruned.num_parameters() < checkpoint.model.num_parameters()
    assert pruned.config.spec.parameters == pruned.num_parameters()
    assert type(pruned) is type(checkpoint.model)


def test_what_an_encoder_does_not_do_is_refused_by_its_key(tmp_path: Path) -> None:
    text = TextSplit(DOCUMENTS, (), "tiny")
    classifier = Checkpoint(tiny_encoder("classification"), encoder_tokenizer())
    with pytest.raises(InputError, match="the time of a token that a decoder") as caught:
        run(tmp_path, classifier, text, target=TargetConfig(decode_ms=1.0))
    assert caught.value.where == "target.decode_ms"
