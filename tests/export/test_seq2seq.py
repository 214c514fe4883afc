"""An encoder-decoder's two graphs give what the checkpoint gives, in every form of weights and way to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from roots_compress.api import load
from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from roots_compress.configs.export import ExportConfig
from roots_compress.errors import InputError, StageError
from roots_compress.export.exact import dequantized
from roots_compress.export.exporter import export_checkpoint, write_graph
from roots_compress.export.parity import check_parity, exact_graph
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.ops.attention import Attention, QkNorm, Rope
from roots_compress.models.ops.base import changed
from roots_compress.models.quantized import Format
from roots_compress.models.resizing import keep_units
from roots_compress.models.seq2seq import RootsForSeq2SeqLM
from roots_compress.models.spec import ModelSpec, Place
from roots_compress.runtime.beams import Beams, beam_search
from roots_compress.runtime.generate import generate
from roots_compress.runtime.onnx.graph_folder import graph_files
from roots_compress.runtime.onnx.seq2seq import OnnxSeq2Seq
from roots_compress.runtime.torch_engine import TorchSeq2Seq
from tests.export.quantized import quantized
from tests.families.sources import save_source
from tests.families.sources import seq2seq as t5
from tests.specs import SEQ2SEQ, seq2seq
from tests.tiny import randomise, tiny_tokenizer, tiny_tokens

SOURCES = tiny_tokens(3, 17).numpy()
LENGTHS = (17, 7, 12)
MASK = (np.arange(17) < np.array(LENGTHS)[:, None]).astype(np.int64)
TARGETS = tiny_tokens(3, 9, seed=1).numpy()


def model_of(spec: ModelSpec, *, cut: bool = False) -> RootsForSeq2SeqLM:
    """Return a random model; if cut, with other widths in every layer."""
    model = cast(RootsForSeq2SeqLM, make_model(RootsConfig(spec=spec, pad_token_id=0)).eval())
    randomise(model)
    if cut:
        keep_units(model, Place(0, "self_attn"), "kv_groups", [0, 2])
        keep_units(model, Place(2, "self_attn"), "kv_groups", [0, 1, 3])
        keep_units(model, Place(3, "cross_attn"), "kv_groups", [1])
    return model


def turned() -> ModelSpec:
    """Return a model with rotary positions, normed queries and keys, and grouped ones in both stacks."""
    spec = seq2seq()
    for place, op in spec.blocks():
        if isinstance(op, Attention) and op.source == "self":
            other = changed(op, relative=None, rope=Rope(), qk_norm=QkNorm(), kv_heads=2)
            spec = spec.with_op(place, other)
    return spec


def served(model: RootsForSeq2SeqLM, folder: Path, *, portable: bool = False) -> OnnxSeq2Seq:
    graph, _ = write_graph(model, folder, portable=portable)
    return OnnxSeq2Seq.open(graph, threads=1, provider="cpu")


@pytest.mark.parametrize("form", ["float32", "float16", "portable"])
@pytest.mark.parametrize("kind", [*SEQ2SEQ, "cut", "rotary"])
def test_graphs_equal_the_checkpoint(kind: str, form: str, tmp_path: Path) -> None:
    spec = turned() if kind == "rotary" else SEQ2SEQ.get(kind, seq2seq())
    model = model_of(spec, cut=kind == "cut")
    expected = TorchSeq2Seq(model).read(SOURCES, MASK).logits(TARGETS)
    model = model.half() if form == "float16" else model
    targets = served(model, tmp_path, portable=form == "portable").read(SOURCES, MASK)
    bound = {"atol": np.abs(expected).max() * (0.02 if form == "float16" else 1e-5)}
    np.testing.assert_allclose(targets.logits(TARGETS), expected, rtol=0, **bound)
    step = targets.prefill(TARGETS[:, :2])
    for place in range(2, 9):
        np.testing.assert_allclose(step.logits, expected[:, place - 1], rtol=0, **bound)
        step = targets.decode(TARGETS[:, place], step.cache)


@pytest.mark.parametrize("portable", [False, True], ids=["fused", "portable"])
@pytest.mark.parametrize("weight_format", ["w8a8", "w8", "w4"])
def test_quantized_weights_of_both_stacks_serve(
    weight_format: Format, portable: bool, tmp_path: Path
) -> None:
    plain = model_of(seq2seq())
    model = quantized(plain, dict.fromkeys(plain.config.spec.matrices(), weight_format))
    expected = TorchSeq2Seq(cast(RootsForSeq2SeqLM, dequantized(model))).read(SOURCES, MASK).logits(TARGETS)
    with exact_graph(write_graph(model, tmp_path, portable=portable)[0]) as graph:
        targets = OnnxSeq2Seq.open(graph, threads=1, provider="cpu").read(SOURCES, MASK)
    step = targets.prefill(TARGETS[:, :2])
    for place in range(2, 9):
        np.testing.assert_allclose(
            step.logits, expected[:, place - 1], rtol=0, atol=1e-4 * np.abs(expected).max()
        )
        step = targets.decode(TARGETS[:, place], step.cache)


@pytest.mark.parametrize("form", ["plain", "cut", "w8a8", "float16"])
def test_an_export_is_compared_whole_and_through_both_caches(form: str, tmp_path: Path) -> None:
    model = model_of(seq2seq(), cut=form == "cut")
    if form == "w8a8":
        model = quantized(model, dict.fromkeys(model.config.spec.matrices(), "w8a8"))
    model = model.half() if form == "float16" else model
    report = export_checkpoint(Checkpoint(model, tiny_tokenizer()), tmp_path / "graph", ExportConfig())
    ways = {case.name.partition(", ")[2] for case in report.parity}
    assert {"whole", "through both caches"} == ways - {"activations not rounded"}
    assert ("activations not rounded" in ways) == (form == "w8a8")


def test_other_runtimes_may_guess_the_size_of_heads(tmp_path: Path) -> None:
    theirs = t5("t5", {"num_heads": 2, "d_kv": 12})
    checkpoint = load_checkpoint(save_source(theirs, tmp_path / "source"))
    assert export_checkpoint(checkpoint, tmp_path / "graph", ExportConfig()).obstacles == ()
    session = ort.InferenceSession(tmp_path / "graph" / "decoder_model_merged.onnx")
    pasts = [value.name for value in session.get_inputs() if value.name.startswith("past")]
    feeds: dict[str, Any] = dict.fromkeys(pasts, np.zeros((3, 2, 0, 16), dtype=np.float32))
    feeds |= {"input_ids": TARGETS, "encoder_attention_mask": MASK}
    engine = OnnxSeq2Seq.open(tmp_path / "graph" / "decoder_model_merged.onnx", threads=1, provider="cpu")
    feeds["encoder_hidden_states"] = engine.encoder.run(None, {"input_ids": SOURCES, "attention_mask": MASK})[
        0
    ]
    found, key, *_others = session.run(["logits", "present.0.decoder.key"], feeds)
    assert key.shape == (3, 2, 9, 12)
    np.testing.assert_allclose(found, engine.read(SOURCES, MASK).logits(TARGETS), rtol=0, atol=1e-6)


@pytest.mark.parametrize("pair", ["decoder.key", "encoder.value"])
def test_caches_under_each_others_names_are_found(pair: str, tmp_path: Path) -> None:
    model = model_of(seq2seq())
    graph, _ = write_graph(model, tmp_path)
    proto = onnx.load(graph, load_external_data=False)
    names = [f"present.{layer}.{pair}" for layer in (0, 1)]
    swap = dict(zip(names, names[::-1], strict=True))
    for node in proto.graph.node:
        for index, name in enumerate(node.output):
            node.output[index] = swap.get(name, name)
    onnx.save(proto, graph)
    with pytest.raises(StageError, match="'one token, through both caches'"):
        check_parity(model, graph, ExportConfig())


def test_greedy_and_beams_equal_transformers(tmp_path: Path) -> None:
    model = model_of(seq2seq())
    theirs: Any = model
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    given = theirs.generate(torch.tensor(SOURCES), attention_mask=torch.tensor(MASK), num_beams=1, **settings)
    greedy = given[:, 1:].tolist()
    engines = TorchSeq2Seq(model), served(model, tmp_path)
    for engine in engines:
        steps = generate(engine.read(SOURCES, MASK), [[engine.start]] * 3, max_new_tokens=12)
        assert [list(row) for row in zip(*steps, strict=True)] == greedy
    for row, count, penalty, stops in (
        (0, 4, 1.0, greedy[0][3:7:2]),
        (1, 3, -1.0, []),
        (2, 2, 2.0, [greedy[2][4]]),
    ):
        source = SOURCES[row : row + 1, : LENGTHS[row]]
        asked = settings | {"num_beams": count, "length_penalty": penalty, "eos_token_id": stops or None}
        wanted = theirs.generate(torch.tensor(source), **asked)[0, 1:].tolist()
        for engine in engines:
            found = beam_search(
                engine.read(source),
                [engine.start],
                Beams(count, penalty),
                max_new_tokens=12,
                stop_tokens=stops,
            )
            assert found == wanted[: len(found)]
            assert set(wanted[len(found) :]) <= {0}


def test_both_graphs_and_the_weights_they_share_are_one_artifact(tmp_path: Path) -> None:
    graph, _ = write_graph(model_of(seq2seq()), tmp_path)
    files = [
        tmp_path / name for name in ("decoder_model_merged.onnx", "encoder_model.onnx", "model.onnx.data")
    ]
    for named in (tmp_path, graph, files[1]):
        assert list(graph_files(named)) == files
    weights = sum(each.numel() for each in model_of(seq2seq()).state_dict().values()) - 300 * 32
    assert 4 * weights * 0.95 < files[2].stat().st_size <= 4 * weights
    files[1].unlink()
    with pytest.raises(InputError, match="the graph is missing") as refusal:
        graph_files(tmp_path)
    assert refusal.value.where == str(files[1])


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    engine = served(model_of(seq2seq()), tmp_path)
    with pytest.raises(InputError, match="longer than the model's 128"):
        engine.read(np.ones((1, 129), dtype=np.int64))
    targets = engine.read(SOURCES, MASK)
    with pytest.raises(InputError, match="2 targets and 3 sources"):
        targets.logits(TARGETS[:2])
    with pytest.raises(InputError, match="differ in length"):
        targets.logits(TARGETS, (np.arange(9) > np.array([0, 1, 2])[:, None]).astype(np.int64))
    config = json.loads((tmp_path / "config.json").read_text())
    del config["head"]["start"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="decoder_start_token_id"):
        OnnxSeq2Seq.open(tmp_path / "decoder_model_merged.onnx", threads=1, provider="cpu")


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        ({}, 64),
        ({"max_new_tokens": 5}, 5),
        ({"max_length": 9}, 8),  # with the token that begins it
        ({"max_length": 9, "max_new_tokens": 3}, 3),
        ({"max_length": 10**6}, 128),
    ],
)
def test_an_answer_is_as_long_as_the_files_ask(asked: dict[str, int], tokens: int, tmp_path: Path) -> None:
    save_checkpoint(Checkpoint(model_of(seq2seq()), tiny_tokenizer()), tmp_path / "model")
    text_only = {"suppress_tokens": [0, 1, 2, 299], "eos_token_id": 299}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(asked | text_only))
    opened = load(tmp_path / "model")
    answers = [opened.generate("The fox", max_new_tokens=count) for count in (tokens - 1, tokens)]
    assert answers[0] != answers[1] == opened.generate("The fox")
