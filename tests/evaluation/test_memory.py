"""Peak memory is the serving process's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from roots_compress.errors import InputError
from roots_compress.evaluation.memory import own_peak_rss_bytes, peak_rss_bytes
from tests.runtime.graphs import history_model, random_weights, write_graph

MIB = 1 << 20
pytestmark = pytest.mark.usefixtures("fresh_children")


def with_ballast(megabytes: int) -> onnx.ModelProto:
    """Return the graph with a tensor of that size, added to the logits after a reduction to nothing."""
    model = history_model(random_weights())
    ballast = np.zeros((megabytes, MIB // 4), dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(ballast, "ballast"))
    last = next(node for node in model.graph.node if node.output[0] == "logits")
    nodes = [
        # Depends on an input, so that it cannot be folded away.
        onnx.helper.make_node("Add", ["ballast", "position_ends"], ["ballast_moved"]),
        onnx.helper.make_node("ReduceMax", ["ballast_moved"], ["ballast_most"], keepdims=0),
        onnx.helper.make_node("Mul", ["ballast_most", "nothing"], ["ballast_none"]),
    ]
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(0, np.float32), "nothing"))
    nodes.insert(0, onnx.helper.make_node("ReduceMax", ["position_float"], ["position_ends"], keepdims=0))
    last.input.append("ballast_none")
    position = list(model.graph.node).index(last)
    rest = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node[position:]]
    del model.graph.node[position:]
    model.graph.node.extend([*nodes, *rest])
    return model


def test_the_peak_holds_the_weights_and_not_this_process(tmp_path: Path) -> None:
    """A parent that holds 400 MiB more than the child must not show in the child's figure."""
    small = write_graph(tmp_path / "small", history_model(random_weights()))
    large = write_graph(tmp_path / "large", with_ballast(64), external=True)
    held = np.ones(400 * MIB, dtype=np.uint8)
    few = peak_rss_bytes(small, context=4, decode_tokens=2, threads=1)
    many = peak_rss_bytes(large, context=4, decode_tokens=2, threads=1)
    assert own_peak_rss_bytes() > held.nbytes
    assert 10 * MIB < few < 200 * MIB
    assert 60 * MIB < many - few < 400 * MIB


def test_a_broken_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no model\.onnx"):
        peak_rss_bytes(tmp_path, context=4, decode_tokens=2, threads=1)


@pytest.mark.parametrize("module", ["memory", "speed"])
def test_the_measuring_process_loads_no_more_than_serving_needs(module: str) -> None:
    unwanted = "{'torch', 'transformers', 'onnx', 'rich', 'pydantic'}"
    code = f"import sys, roots_compress.evaluation.{module}; print({unwanted} & sys.modules.keys())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
