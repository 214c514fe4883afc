"""The parity check passes what is right and finds what is wrong, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from roots_compress.configs.export import ExportConfig
from roots_compress.errors import InputError, StageError
from roots_compress.export.exact import dequantized
from roots_compress.export.exporter import save_graph
from roots_compress.export.graph import build_graph
from roots_compress.export.parity import check_parity, make_scripts
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.quantized import Format, QuantizedEmbedding
from roots_compress.runtime.onnx.engine import OnnxCache, OnnxEngine
from tests.export.quantized import tiny_quantized, with_int8_cache
from tests.specs import BY_SIGMOIDS, IN_GROUPS, clamped, with_experts
from tests.tiny import tiny_layer, tiny_model, tiny_tokens


def written(model: RootsForCausalLM, folder: Path) -> Path:
    model.config.save_pretrained(folder)
    return save_graph(build_graph(model), folder)


def plant(graph: Path, name: str, factor: float) -> None:
    """Multiply one element of an initializer."""
    proto = onnx.load(graph)
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    array = np.array(numpy_helper.to_array(tensor))
    largest = np.unravel_index(np.abs(array).argmax(), array.shape)
    array[largest] *= factor
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(proto, graph)


def swap_caches(graph: Path) -> None:
    """Let the layers' keys leave the graph under each other's names."""
    proto = onnx.load(graph)
    swap = {"present.0.key": "present.1.key", "present.1.key": "present.0.key"}
    for node in proto.graph.node:
        for index, name in enumerate(node.output):
            node.output[index] = swap.get(name, name)
    onnx.save(proto, graph)


def test_scripts_cover_one_token_and_a_ragged_batch() -> None:
    scripts = make_scripts(tiny_model())
    assert [script.shape.tokens - script.shape.decoded for script in scripts] == [1, 34, 34]
    assert scripts[-1].mask.sum(axis=1).tolist() == [40, 23, 7]
    assert scripts[-1].mask[:, -7:].all()


@pytest.mark.parametrize("portable", [False, True], ids=["fused", "portable"])
@pytest.mark.parametrize("weight_format", [None, "w8a8"])
def test_both_forms_pass(tmp_path: Path, weight_format: Format | None, portable: bool) -> None:
    layers = [tiny_layer(head_dim=16), tiny_layer(head_dim=16, num_key_value_heads=1, sliding_window=9)]
    model = tiny_quantized(weight_format, layers=layers) if weight_format else tiny_model(layers=layers)
    model.config.save_pretrained(tmp_path)
    graph = save_graph(build_graph(model, portable=portable), tmp_path)
    assert all(case.passed for case in check_parity(model, graph, ExportConfig()))


@pytest.mark.parametrize("weight_format", [None, "w8a8", "w4"])
def test_a_cache_in_int8_passes(tmp_path: Path, weight_format: Format | None) -> None:
    layers = [tiny_layer(head_dim=16), tiny_layer(head_dim=16, num_key_value_heads=1, sliding_window=9)]
    model = tiny_quantized(weight_format, layers=layers) if weight_format else tiny_model(layers=layers)
    model = with_int8_cache(model)
    assert all(case.passed for case in check_parity(model, written(model, tmp_path), ExportConfig()))


@pytest.mark.parametrize("split", [1, 7, 23, 39])
def test_a_cache_in_int8_holds_what_the_checkpoint_rounds_to(tmp_path: Path, split: int) -> None:
    plain = tiny_model(layers=[tiny_layer(head_dim=16), tiny_layer(head_dim=16, num_key_value_heads=1)])
    model = with_int8_cache(plain)
    engine = OnnxEngine.open(written(model, tmp_path), threads=1, provider="cpu")
    input_ids, mask = tiny_tokens(2, 40), torch.ones(2, 40, dtype=torch.int64)
    mask[1, : min(5, split - 1)] = 0
    with torch.no_grad():
        expected = model(input_ids=input_ids, attention_mask=mask).logits.numpy()
        unrounded = plain(input_ids=input_ids, attention_mask=mask).logits.numpy()
    # Far less than what the rounding changes.
    assert np.abs(expected - unrounded)[:, 10:].max() > 0.01
    step = engine.prefill(input_ids[:, :split].numpy(), mask[:, :split].numpy())
    for position in range(split, 40):
        assert isinstance(step.cache, OnnxCache)
        assert {value.data_type() for value in step.cache.keys_values} == {"tensor(int8)"}
        step = engine.decode(input_ids[:, position].numpy(), step.cache)
        np.testing.assert_allclose(step.logits, expected[:, position], atol=5e-4)


@pytest.mark.parametrize("weight_format", [None, "w8", "w4"])
@pytest.mark.parametrize("form", ["fused", "portable", "int8 cache"])
def test_sinks_and_bounded_experts_pass(tmp_path: Path, weight_format: Format | None, form: str) -> None:
    spec = clamped(head_dim=16, channels=32)
    model = tiny_quantized(weight_format, spec=spec) if weight_format else tiny_model(spec=spec)
    model = with_int8_cache(model) if form == "int8 cache" else model
    model.config.save_pretrained(tmp_path)
    graph = save_graph(build_graph(model, portable=form == "portable"), tmp_path)
    assert all(case.passed for case in check_parity(model, graph, ExportConfig()))


@pytest.mark.parametrize(
    "routing",
    [{"renormalise": False}, {"renormalise": True}, {**BY_SIGMOIDS, "chosen": 3}, IN_GROUPS],
    ids=["as they are", "divided", "sigmoids", "groups"],
)
@pytest.mark.parametrize(("weight_format", "operator"), [(None, "MoE"), ("w8", "QMoE"), ("w4", "QMoE")])
def test_experts_are_one_operator(
    tmp_path: Path, weight_format: Format | None, operator: str, routing: dict[str, Any]
) -> None:
    spec = with_experts(channels=32, **routing)
    model = tiny_quantized(weight_format, spec=spec) if weight_format else tiny_model(spec=spec)
    graph = written(model, tmp_path)
    assert [node.op_type for node in onnx.load(graph).graph.node].count(operator) == 2
    assert all(case.passed for case in check_parity(model, graph, ExportConfig()))
    factor = f"model.layers.0.mlp.experts.gate_up_proj.weight{'_scale' if weight_format else ''}"
    plant(graph, factor, 3.0)
    with pytest.raises(StageError, match="differ from the checkpoint's"):
        check_parity(model, graph, ExportConfig())


def test_a_graph_that_gives_no_numbers_is_found(tmp_path: Path) -> None:
    model = tiny_model()
    graph = written(model, tmp_path)
    plant(graph, "model.norm.weight", np.nan)
    with pytest.raises(StageError, match=r"differ from the checkpoint's: by nan"):
        check_parity(model, graph, ExportConfig())


def test_experts_that_no_operator_takes_all_run(tmp_path: Path) -> None:
    mixed = with_experts(channels=24)  # No whole groups.
    models = [tiny_quantized("w4", spec=mixed)]
    models += [tiny_quantized("w8a8", spec=with_experts(channels=32, **each)) for each in ({}, BY_SIGMOIDS)]
    for model in models:
        graph = written(model, tmp_path)
        assert not {node.op_type for node in onnx.load(graph).graph.node} & {"MoE", "QMoE"}
        assert all(case.passed for case in check_parity(model, graph, ExportConfig()))


def test_a_cache_in_int8_has_no_portable_form() -> None:
    model = with_int8_cache(tiny_model(layers=[tiny_layer(head_dim=16)]))
    with pytest.raises(InputError, match="fused attention"):
        build_graph(model, portable=True)


@pytest.mark.parametrize("int8_cache", [False, True])
def test_the_engine_writes_into_one_cache_until_it_must_grow(tmp_path: Path, int8_cache: bool) -> None:
    model = tiny_model(layers=[tiny_layer(head_dim=16)])
    model = with_int8_cache(model) if int8_cache else model
    engine = OnnxEngine.open(written(model, tmp_path), threads=1, provider="cpu")
    input_ids, mask = tiny_tokens(2, 100), np.ones((2, 100), dtype=np.int64)
    mask[1, :5] = 0
    logits = engine.logits(input_ids.numpy(), mask)
    step, places = engine.prefill(input_ids[:, :9].numpy(), mask[:, :9]), set()
    for position in range(9, 100):
        assert isinstance(step.cache, OnnxCache)
        places.add(step.cache.keys_values[0].data_ptr())
        step = engine.decode(input_ids[:, position].numpy(), step.cache)
        np.testing.assert_allclose(step.logits, logits[:, position], rtol=1e-4, atol=1e-4)
    # Room for 9 + 64 slots at first, then for all that the context allows.
    assert len(places) == 2


@pytest.mark.parametrize("int8_cache", [False, True])
@pytest.mark.parametrize("padding", [0, 3, 20])
@pytest.mark.parametrize("chunk", [1, 7, 16, 61])
def test_a_prompt_read_in_pieces_gives_the_same_logits(
    tmp_path: Path, chunk: int, padding: int, int8_cache: bool
) -> None:
    model = tiny_model(layers=[tiny_layer(head_dim=16), tiny_layer(head_dim=16, sliding_window=9)])
    model = with_int8_cache(model) if int8_cache else model
    graph = written(model, tmp_path)
    whole, pieces = (
        OnnxEngine.open(graph, threads=1, provider="cpu", prefill_chunk=tokens) for tokens in (1000, chunk)
    )
    input_ids, mask = tiny_tokens(1, 61).numpy(), np.ones((1, 61), dtype=np.int64)
    mask[0, :padding] = 0
    expected, step = whole.logits(input_ids, mask), pieces.prefill(input_ids[:, :59], mask[:, :59])
    np.testing.assert_allclose(step.logits, expected[:, 58], rtol=1e-4, atol=1e-4)
    for position in (59, 60):
        step = pieces.decode(input_ids[:, position], step.cache)
        np.testing.assert_allclose(step.logits, expected[:, position], rtol=1e-4, atol=1e-4)


def test_two_caches_of_one_engine_do_not_mix(tmp_path: Path) -> None:
    model = tiny_model(layers=[tiny_layer(head_dim=16)])
    engine = OnnxEngine.open(written(model, tmp_path), threads=1, provider="cpu")
    rows = [tiny_tokens(1, 12).numpy(), tiny_tokens(1, 12).numpy()[:, ::-1].copy()]
    expected = [engine.logits(row) for row in rows]
    steps = [engine.prefill(row[:, :8]) for row in rows]
    for position in range(8, 12):
        for index, row in enumerate(rows):
            steps[index] = engine.decode(row[:, position], steps[index].cache)
            np.testing.assert_allclose(
                steps[index].logits, expected[index][:, position], rtol=1e-4, atol=1e-4
            )


def test_a_context_of_two_tokens_is_enough(tmp_path: Path) -> None:
    model = tiny_model(max_position_embeddings=2)
    assert all(case.passed for case in check_parity(model, written(model, tmp_path), ExportConfig()))


@pytest.mark.parametrize(
    "name", ["model.layers.1.self_attn.o_proj.weight", "model.embed_tokens.weight", "rotary_frequencies_8"]
)
def test_a_planted_fault_is_found(tmp_path: Path, name: str) -> None:
    model = tiny_model()
    graph = written(model, tmp_path)
    plant(graph, name, 1.5)
    with pytest.raises(StageError, match="in the case '"):
        check_parity(model, graph, ExportConfig())


@pytest.mark.parametrize("weight_format", ["w8a8", "w8", "w4"])
def test_one_wrong_scale_of_a_quantized_weight_is_found_behind_the_rounding(
    tmp_path: Path, weight_format: Format
) -> None:
    model = tiny_quantized(weight_format)
    graph = written(model, tmp_path)
    assert all(case.passed for case in check_parity(model, graph, ExportConfig()))
    plant(graph, "model.layers.0.mlp.down_proj.weight_scale", 1.2)
    with pytest.raises(StageError, match="activations not rounded"):
        check_parity(model, graph, ExportConfig())


def test_a_cache_that_is_cut_wrong_is_found_in_decoding(tmp_path: Path) -> None:
    model = tiny_model()
    graph = written(model, tmp_path)
    swap_caches(graph)
    with pytest.raises(StageError, match="prefill and decode"):
        check_parity(model, graph, ExportConfig())


def test_a_checkpoint_whose_own_logits_are_not_finite_is_named_and_not_the_graph(tmp_path: Path) -> None:
    model = tiny_model()
    graph = written(model, tmp_path)
    with torch.no_grad():
        for projection in (model.model.layers[0].mlp.up_proj, model.model.layers[0].mlp.gate_proj):
            projection.weight.mul_(1e21)
    with pytest.raises(StageError, match="the checkpoint's own logits are NaN or infinite"):
        check_parity(model, graph, ExportConfig())


def test_dequantized_models_have_a_table_for_lookups_and_one_for_the_head() -> None:
    model = tiny_quantized("w8", layers=[tiny_layer(intermediate_size=23)])
    plain = dequantized(model)
    assert plain.config.quantization is None
    assert plain.lm_head is not None
    table = model.model.embed_tokens
    assert isinstance(table, QuantizedEmbedding)
    assert torch.equal(plain.lm_head.get_parameter("weight"), table.dequantize())
    lookups = plain.model.embed_tokens.get_parameter("weight")
    assert torch.equal(lookups, table(torch.arange(table.rows)))
    assert not torch.allclose(plain.lm_head.get_parameter("weight"), lookups)
