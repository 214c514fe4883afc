"""Pre-training of encoders: pairs half true, replaced tokens, losses weighted together, exactly resumed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from roots_compress.configs.train import ObjectiveConfig
from roots_compress.configs.training import TrainingConfig
from roots_compress.data.documents import Document
from roots_compress.data.masking import pack_masked
from roots_compress.data.sentence_pairs import SentencePairs, pack_sentence_pairs
from roots_compress.data.windows import IGNORED_LABEL
from roots_compress.errors import InputError
from roots_compress.models.heads import RootsWithHead
from roots_compress.training.batches import BatchOrder
from roots_compress.training.context import TrainingContext
from roots_compress.training.loop import fit
from roots_compress.training.pretraining import Pretraining
from tests.encoders import encoder_tokenizer, tiny_encoder
from tests.tasks.commands import roots
from tests.tiny import TEXT
from tests.training.test_loop import quiet
from tests.training.test_resume import assert_identical, press_ctrl_c, weights

DOCUMENTS = [
    Document.plain(" ".join(random.Random(number).choices(TEXT.split(), k=40 + 9 * number)))
    for number in range(10)
]


def pairs(block_size: int = 32) -> SentencePairs:
    return pack_sentence_pairs(DOCUMENTS, encoder_tokenizer(), block_size, seed=0)


def parts_of(found: SentencePairs) -> Iterator[tuple[list[int], list[int], int]]:
    """Yield the two parts of each pair, what closes them left out, and whether one follows the other."""
    assert found.token_types is not None
    for text_T, types_T, segments_T, follows_T in zip(
        found.text, found.token_types, found.segment_ids, found.follows, strict=True
    ):
        starts = np.flatnonzero(follows_T != IGNORED_LABEL)
        for number, start in enumerate(starts):
            own_T = segments_T == number
            assert own_T[start], "a pair's answer is at its first position"
            first, second = text_T[own_T & (types_T == 0)], text_T[own_T & (types_T == 1)]
            yield first[1:-1].tolist(), second[:-1].tolist(), int(follows_T[start])


def test_half_of_the_pairs_are_true() -> None:
    tokenizer, found = encoder_tokenizer(), pairs()
    texts = [tokenizer(document.text, add_special_tokens=False)["input_ids"] for document in DOCUMENTS]
    joined = [" ".join(map(str, text)) for text in texts]
    parts = list(parts_of(found))
    assert abs(sum(follows for _, _, follows in parts) * 2 - len(parts)) <= 1
    for first, second, follows in parts:
        whole = " ".join(map(str, [*first, *second]))
        assert any(whole in text for text in joined) == follows
    assert (found.text[:, 0] == tokenizer.cls_token_id).all()
    hidden = (found.targets != IGNORED_LABEL).sum() / found.maskable.sum()
    assert hidden == pytest.approx(0.15, abs=0.02)
    with pytest.raises(InputError, match="two documents or more"):
        pack_sentence_pairs(DOCUMENTS[:1], tokenizer, 32, seed=0)


@pytest.mark.parametrize("block_size", [32, 256])
def test_how_the_second_part_begins_and_ends_does_not_tell_whether_it_follows(block_size: int) -> None:
    tokenizer = encoder_tokenizer()
    texts = [random.Random(number).choices(TEXT.split(), k=25) for number in range(200)]
    documents = [Document.plain(" ".join(text)) for text in texts]
    edges = {"begins": slice(0, 3), "ends": slice(-3, None)}
    ids = [tokenizer(each.text, add_special_tokens=False)["input_ids"] for each in documents]
    known = {name: {tuple(each[part]) for each in ids} for name, part in edges.items()}
    found = pack_sentence_pairs(documents, tokenizer, block_size, seed=0)
    parts = list(parts_of(found))
    for name, part in edges.items():
        shares = [
            np.mean([tuple(second[part]) in known[name] for _, second, follows in parts if follows == value])
            for value in (0, 1)
        ]
        assert shares[0] == pytest.approx(shares[1], abs=0.1), name
    lengths = [np.mean([len(b) for _, b, follows in parts if follows == value]) for value in (0, 1)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.2)
    pairs_N1 = (found.follows != IGNORED_LABEL).sum(axis=1, keepdims=True)
    assert (found.segment_ids < pairs_N1).mean() > 0.7, "windows are filled up"


def objective_of(model: RootsWithHead, windows: SentencePairs, **changes: float) -> Pretraining:
    config = ObjectiveConfig(**{"nsp": 0.5, "rtd": 3.0, **changes})
    return Pretraining(config, windows, model.config.spec, seed=0)


def test_losses_are_weighted_together_and_reach_what_they_train() -> None:
    model, windows = tiny_encoder(), pairs()
    batch = BatchOrder(windows, seed=0).take(8, 4, "cpu")
    objective = objective_of(model, windows)
    loss = objective(model, batch)
    parts = {name: float(value) for name, value in loss.parts.items()}
    weighted = parts["cross_entropy"] + 0.5 * parts["pairs"] + parts["generator"] + 3 * parts["replaced"]
    assert loss.total.item() == pytest.approx(weighted, rel=1e-5)
    loss.total.backward()
    for module in (model.model, objective.pairs, objective.replaced, objective.generator):
        assert all(parameter.grad is not None for parameter in module.parameters())
    assert objective.generator.config.hidden_size == 8
    again = objective(model, batch)
    assert again.total.item() == loss.total.item(), "what is drawn follows from the batch's place"
    alone = Pretraining(
        ObjectiveConfig(), pack_masked(DOCUMENTS, encoder_tokenizer(), 32, seed=0), model.config.spec, seed=0
    )
    assert not list(alone.parameters())


def test_a_generator_that_is_right_replaces_nothing() -> None:
    model, windows = tiny_encoder(), pairs()
    objective = objective_of(model, windows)
    batch = BatchOrder(windows, seed=0).take(0, 4, "cpu")
    with torch.no_grad():
        objective.generator.transform.norm.weight.zero_()
        objective.generator.transform.bias.fill_(-1e4)
        objective.generator.transform.bias[7] = 0.0
    _, _, filled_BT = objective._filled(batch, {"segment_ids": batch.segment_ids_BT})
    assert (filled_BT[batch.scored_BT] == 7).all()
    assert (filled_BT[~batch.scored_BT] == batch.input_ids_BT[~batch.scored_BT]).all()


def test_a_resumed_pre_training_is_bit_identical(tmp_path: Path) -> None:
    windows = pairs()
    training = TrainingConfig(steps=6, batch_size=2, block_size=32, precision="fp32", checkpoint_every=100)

    def trained(work: Path, stop_after: int | None = None) -> RootsWithHead:
        work.mkdir(exist_ok=True)
        model = tiny_encoder()
        if stop_after is not None:
            press_ctrl_c(model, after=stop_after)  # type: ignore[arg-type]
        objective = objective_of(model, windows)
        fit(model, windows, objective, training, TrainingContext("cpu", 0, work, quiet()))
        return model

    straight = trained(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "again", stop_after=7)
    resumed = trained(tmp_path / "again")
    assert_identical(weights(resumed), weights(straight))  # type: ignore[arg-type]


def test_an_encoder_is_pre_trained_and_becomes_a_classifier_by_verbs(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": each.text}) + "\n" for each in DOCUMENTS))
    run = tmp_path / "run"
    settings = {
        "architecture.intermediate_size": 64,
        "architecture.max_position_embeddings": 64,
        "tokenizer.mask_token": "<hidden>",
    }
    options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    options += ["--tokenizer", "wordpiece", "--lowercase", "--vocab-size", "200", "--layers", "1"]
    options += ["--hidden-size", "32", "--steps", "4", "--train-block-size", "32", "--block-size", "32"]
    options += ["--windows", "4", "--threads", "1", "--data", str(tmp_path / "a.jsonl")]
    said = roots("train", "--nsp", "1", "--rtd", "5", *options, "--run", run)
    assert "pseudo-perplexity" in said
    encoder = run / "00-baseline" / "checkpoint"
    assert "<hidden>" in (encoder / "tokenizer.json").read_text()
    (tmp_path / "t.csv").write_text(
        "text,label\n" + "a quick fox,fox\na lazy dog,dog\nover the dog,dog\n" * 9
    )
    (tmp_path / "e.csv").write_text("text,label\nfox,fox\ndog,dog\n")
    options = [
        "--data",
        str(tmp_path / "t.csv"),
        "--eval-data",
        str(tmp_path / "e.csv"),
        "--block-size",
        "32",
    ]
    options += [
        "--train-block-size",
        "32",
        "--steps",
        "2",
        "--threads",
        "1",
        "--run",
        str(tmp_path / "labels"),
    ]
    said = roots("tune", encoder, "--label", "fox", "--label", "dog", *options)
    assert "MCC" in said
    classifier = tmp_path / "labels" / "01-tune" / "checkpoint"
    refused = roots("train", classifier, "--rtd", "1", *options[:-1], str(tmp_path / "r"), code=2)
    assert "an objective is for masked language models, and the model is one of classification" in refused
    pseudo_perplexity = json.loads((run / "metrics.json").read_text())["stages"][0]["pseudo_perplexity"]
    # After four steps the model knows next to nothing: it is about as unsure as a draw among 200 entries.
    assert 20 < pseudo_perplexity < 400
