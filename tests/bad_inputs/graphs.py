"""Malformed graph folders: what `generate`, `eval` and `bench` may be given in place of an export."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from tests.bad_inputs.cases import ON_TEXT, Bench, Generator, Request
from tests.runtime.graphs import history_model, random_weights, write_graph

GRAPH = "model.onnx"
DATA = "model.onnx.data"


def met(bench: Bench, folder: str, names: str, says: str = "") -> Request:
    """Return a verb that serves a graph."""
    bench.take("prose")
    generate = ("generate", folder, "-p", "hello", "--max-new-tokens", "2", "--threads", "1")
    timing = ("--context", "8", "--decode-tokens", "2", "--repeats", "1", "--threads", "1")
    commands = [generate, ("eval", folder, *ON_TEXT), ("bench", folder, *timing)]
    return Request(bench.random.choice(commands), names, says)


def generated(folder: str, names: str, says: str = "") -> Request:
    """Return the verb that needs a tokenizer and runs in this process."""
    return Request(("generate", folder, "-p", "hello", "--max-new-tokens", "2"), names, says)


def external(bench: Bench) -> Path:
    """Return a good graph whose weights lie in a file beside it."""
    folder = bench.take(bench.random.choice(("graph", "portable")), "graph")
    model = onnx.load(folder / GRAPH)
    onnx.save(model, folder / GRAPH, save_as_external_data=True, location=DATA, size_threshold=64)
    return folder


def change(folder: Path, edit: Callable[[ModelProto], object]) -> None:
    """Change a graph without touching its data."""
    model = onnx.load(folder / GRAPH, load_external_data=False)
    edit(model)
    (folder / GRAPH).write_bytes(model.SerializeToString())


def first_external(model: ModelProto) -> TensorProto:
    """Return the first tensor whose data lies elsewhere."""
    found: TensorProto = next(
        each for each in model.graph.initializer if each.data_location == TensorProto.EXTERNAL
    )
    return found


def relocate(model: ModelProto, **entries: str) -> None:
    """Say of the first external tensor that its data lies elsewhere."""
    tensor = first_external(model)
    known = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in known.items():
        tensor.external_data.add(key=key, value=value)


def not_onnx(bench: Bench) -> Request:
    """Offer other bytes for the graph, or a part of it."""
    folder = bench.take("graph")
    path = folder / GRAPH
    data = path.read_bytes()
    # The graph itself is the longest field; cut inside it nothing is left that parses.
    match bench.random.randrange(5):
        case 0:
            path.write_bytes(data[: bench.random.randrange(40, len(data) - 2000)])
        case 1:
            path.write_bytes(bench.random.randbytes(bench.random.randrange(1, 4000)))
        case 2:
            path.write_bytes(
                bench.random.choice((b"", b"\x7fELF" * 99, b"PK\x03\x04", b"ORTM" * 20, b"\x80\x04."))
            )
        case 3:
            path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        case _:
            path.write_bytes(data[: len(data) // 2] + bench.random.randbytes(64) + data[-64:])
    return met(bench, "graph", GRAPH)


def no_file(bench: Bench) -> Request:
    """Leave files of the folder out, or offer what is no file."""
    folder = bench.take("graph")
    name = bench.random.choice((GRAPH, "config.json", "tokenizer.json"))
    (folder / name).unlink()
    match bench.random.randrange(5):
        case 0:
            os.mkfifo(folder / name)
        case 1:
            (folder / name).symlink_to(name)
        case 2:
            (folder / name).mkdir()
        case 3:
            (folder / name).symlink_to("/dev/zero")
        case _:
            pass
    if name == "tokenizer.json":
        return generated("graph", "graph", "tokenizer.json")
    # Without its graph the folder may still be a checkpoint, of which eval then says what it lacks.
    return met(bench, "graph", "graph")


LOCATIONS = (
    "/etc/passwd", "../secret", "a/../../secret", "..\\secret", "C:\\secret", ".", "..", "", "//host/share/x",
    "file:///etc/passwd", "a/./../../secret", "/proc/self/environ", "x\0y", "\x1b[2Jred", "x" * 5000,
    "*/_ORT_MEM_ADDR_/*", "~/.ssh/id_rsa",
)  # fmt: skip


def outside(bench: Bench) -> Request:
    """Point a tensor to data that is not the graph's."""
    folder = external(bench)
    bench.write("secret", bytes(1 << 16))
    if bench.random.random() < 0.3:
        bench.write("graph/*/_ORT_MEM_ADDR_/*", bytes(1 << 16))
    change(folder, lambda model: relocate(model, location=bench.random.choice(LOCATIONS)))
    return met(bench, "graph", GRAPH)


def linked(bench: Bench) -> Request:
    """Let the data be a link, or lie behind one."""
    folder = external(bench)
    secret = bench.write("secret", (folder / DATA).read_bytes())
    (folder / DATA).unlink()
    match bench.random.randrange(4):
        case 0:
            (folder / DATA).symlink_to(secret)
        case 1:
            (folder / DATA).hardlink_to(secret)
        case 2:
            (folder / "in").symlink_to(bench.folder)
            change(folder, lambda model: relocate(model, location="in/secret"))
        case _:
            os.mkfifo(folder / DATA)
    return met(bench, "graph", GRAPH)


def extent(bench: Bench) -> Request:
    """Give a tensor an impossible place in its data."""
    folder = external(bench)
    key = bench.random.choice(("offset", "length"))
    values = (
        "-1",
        str(-(2**63)),
        str(10**15),
        str(2**64),
        "9" * 4000,
        "zero",
        "",
        "1e3",
        "0x10",
        "NaN",
        "1_0",
    )
    change(folder, lambda model: relocate(model, **{key: bench.random.choice(values)}))
    return met(bench, "graph", GRAPH)


def data_file(bench: Bench) -> Request:
    """Leave the data out, or cut it short."""
    folder = external(bench)
    data = folder / DATA
    if bench.random.random() < 0.3:
        data.unlink()
    else:
        data.write_bytes(data.read_bytes()[: -bench.random.randrange(1, data.stat().st_size)])
    return met(bench, "graph", GRAPH)


def external_keys(bench: Bench) -> Request:
    """Give a tensor's external data keys that mean nothing, or one twice."""
    folder = external(bench)

    def edit(model: ModelProto) -> None:
        tensor = first_external(model)
        match bench.random.randrange(4):
            case 0:
                tensor.external_data.add(key="__class__", value="evil")
            case 1:
                tensor.external_data.add(key="location", value="/etc/passwd")
            case 2:
                tensor.external_data.add(key="basepath", value="/")
            case _:
                del tensor.external_data[:]

    change(folder, edit)
    return met(bench, "graph", GRAPH)


def opset(bench: Bench) -> Request:
    """Ask for a set of operators that the installed runtime has not."""
    folder = bench.take(bench.random.choice(("graph", "portable")), "graph")
    version = bench.random.choice((0, -1, 9, 999, 2**40))
    change(folder, lambda model: setattr(model.opset_import[0], "version", version))
    return met(bench, "graph", GRAPH)


def operator(bench: Bench) -> Request:
    """Use an operator that nobody has, or one of another's library."""
    folder = bench.take("graph")

    def edit(model: ModelProto) -> None:
        node = bench.random.choice(model.graph.node)
        node.domain = bench.random.choice(("nobody.knows", "ai.onnx.ml", "com.evil", "x" * 3000))
        node.op_type = bench.random.choice(("System", "PyOp", "EPContext", "Loop", ""))
        model.opset_import.append(helper.make_opsetid(node.domain, 1))

    change(folder, edit)
    return met(bench, "graph", GRAPH)


def wiring(bench: Bench) -> Request:
    """Take a node away, let nodes feed themselves, or feed on what is not there."""
    folder = bench.take(bench.random.choice(("graph", "portable")), "graph")

    def edit(model: ModelProto) -> None:
        nodes = model.graph.node
        node = bench.random.choice([each for each in nodes if each.input and each.input[0]])
        match bench.random.randrange(4):
            case 0:
                node.input[0] = node.output[0]
            case 1:
                node.input[0] = "nothing"
            case 2:
                del model.graph.output[bench.random.randrange(len(model.graph.output))]
            case _:
                del model.graph.input[bench.random.randrange(len(model.graph.input) - 1)]

    change(folder, edit)
    return met(bench, "graph", "graph")


def signature(bench: Bench) -> Request:
    """Change names, types or shapes of what goes in and out."""
    model = history_model(random_weights())
    value = bench.random.choice((0, 1, 2, 3))
    tensor = model.graph.input[value].type.tensor_type
    match bench.random.randrange(4):
        case 0:
            tensor.elem_type = TensorProto.INT32
        case 1:
            tensor.shape.dim[0].dim_value = 1
        case 2:
            del tensor.shape.dim[:]
        case _:
            model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    folder = write_graph(bench.folder / "graph", model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((bench.good / "graph" / name).read_bytes())
    return met(bench, "graph", GRAPH)


def nested(bench: Bench) -> Request:
    """Nest branches far deeper than anyone writes."""
    folder = bench.take("graph")
    depth = bench.random.choice((200, 2000, 5000))
    text = b""
    # Field 6 of an attribute is a graph, 1 of a graph a node, 5 of a node an attribute.
    for _ in range(depth):
        attribute = b"\x32" + _varint(len(text)) + text
        node = b"\x2a" + _varint(len(attribute)) + attribute
        text = b"\x0a" + _varint(len(node)) + node
    data = (folder / GRAPH).read_bytes()
    (folder / GRAPH).write_bytes(data + b"\x3a" + _varint(len(text)) + text)
    return met(bench, "graph", GRAPH)


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def too_large(bench: Bench) -> Request:
    """Offer a graph of more bytes than a message may have; the file is a hole."""
    folder = bench.take("graph")
    with (folder / GRAPH).open("r+b") as file:
        file.truncate(bench.random.choice((2**31 + 1, 2**33, 2**40)))
    return met(bench, "graph", GRAPH)


def cannot_run(bench: Bench) -> Request:
    """Offer a graph that opens, and fails at the first token."""
    folder = bench.take("portable", "graph")
    name = bench.random.choice(("embedding rows", "shape", "cast"))

    def edit(model: ModelProto) -> None:
        gathers = [node for node in model.graph.node if node.op_type == "Gather"]
        reshapes = [node for node in model.graph.node if node.op_type == "Reshape"]
        if name == "embedding rows" or not reshapes:
            # Ids far beyond the table.
            _insert_before(model, gathers[0], 10**6)
        else:
            node = bench.random.choice(reshapes)
            shape = helper.make_tensor("bad_shape", TensorProto.INT64, [2], [7, 13])
            model.graph.initializer.append(shape)
            node.input[1] = "bad_shape"

    change(folder, edit)
    return met(bench, "graph", "graph")


def _insert_before(model: ModelProto, gather: NodeProto, offset: int) -> None:
    """Add a number to the ids that a node looks up."""
    model.graph.initializer.append(helper.make_tensor("far", TensorProto.INT64, [], [offset]))
    add = helper.make_node("Add", [gather.input[1], "far"], ["far_ids"])
    gather.input[1] = "far_ids"
    model.graph.node.insert(list(model.graph.node).index(gather), add)


CONFIG_TEXTS: tuple[Any, ...] = (
    "{", "[]", "3", "{}", {"vocab_size": "300", "max_position_embeddings": 8}, {"vocab_size": 300},
    {"vocab_size": -1, "max_position_embeddings": 8}, {"vocab_size": 10**30, "max_position_embeddings": 8},
    {"vocab_size": 7, "max_position_embeddings": 8}, {"vocab_size": 301, "max_position_embeddings": 128},
    {"vocab_size": 300, "max_position_embeddings": 1}, {"vocab_size": 300, "max_position_embeddings": True},
    {"vocab_size": 10**9, "max_position_embeddings": 128}, {"roots": 3}, {"roots": {"vocab_size": 1}},
    b"\xff\xfe",
)  # fmt: skip


def wrong_config(bench: Bench) -> Request:
    """Let config.json say what the graph is not."""
    folder = bench.take(bench.random.choice(("graph", "portable")), "graph")
    value = bench.random.choice(CONFIG_TEXTS)
    text = value if isinstance(value, str | bytes) else json.dumps(value)
    (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    # A context too short for anything is no fault of the folder's: the request is what does not fit.
    short = isinstance(value, dict) and value.get("vocab_size") == 300 and len(value) == 2
    return met(bench, "graph", "context" if short and value["max_position_embeddings"] == 1 else "graph")


def wrong_tokenizer(bench: Bench, name: str = "tokenizer.json") -> Request:
    """Put another tokenizer, a part of one or none beside a graph."""
    folder = bench.take("graph")
    text = (folder / name).read_text()
    document = json.loads(text)
    match bench.random.randrange(5):
        case 0:
            (folder / name).write_text(text[: bench.random.randrange(text.rindex("}"))])
        case 1:
            document["model"]["vocab"]["far away"] = 10**6
            document["added_tokens"] = []
            (folder / name).write_text(json.dumps(document))
        case 2:
            document["model"]["vocab"] = {}
            document["added_tokens"] = []
            (folder / name).write_text(json.dumps(document))
        case 3:
            (folder / name).write_text(bench.random.choice(("{}", "[]", "null", "", "{", '{"a": 1, "a": 1}')))
        case _:
            document["model"]["type"] = bench.random.choice(("Nothing", "WordLevel", 3))
            (folder / name).write_text(json.dumps(document))
    return generated("graph", "graph")


def prompts(bench: Bench) -> Request:
    """Ask for more tokens than the graph holds, for none, or for samples that cannot be drawn."""
    bench.take("graph")
    options: tuple[tuple[tuple[str, ...], str], ...] = (
        (("-p", ""), "prompt"), (("-p", "x " * 400), "context"), (("-p", "x", "--max-new-tokens", "0"),
        "max-new"),
        (("-p", "x", "--max-new-tokens", "100000"), "context"), (("-p", "x", "--temperature", "-1"),
        "temperature"),
        (("-p", "x", "--temperature", "nan"), "temperature"), (("-p", "x", "--temperature", "inf"),
        "temperature"),
        (("-p", "x", "--temperature", "1", "--top-k", "0"), "--top-k"),
        (("-p", "x", "--temperature", "1", "--top-p", "0"), "--top-p"),
        (("-p", "x", "--temperature", "1", "--top-p", "1.5"), "--top-p"),
        (("-p", "x", "--temperature", "1", "--top-p", "nan"), "--top-p"),
        (("-p", "x", "--temperature", "1e-320"), "temperature"),
        (("-p", "x", "--seed", "-1"), "seed"), (("-p", "x", "--seed", str(2**65), "--temperature", "1"),
        "seed"),
        (("-p", "x", "--threads", "0"), "threads"), (("-p", "x\udcff"), "prompt"), ((), "prompt"),
    )  # fmt: skip
    arguments, says = bench.random.choice(options)
    return Request(("generate", "graph", *arguments), says)


def contexts(bench: Bench) -> Request:
    """Time or score more tokens than the graph holds."""
    bench.take("graph")
    bench.take("prose")
    options: tuple[tuple[tuple[str, ...], str], ...] = (
        (("bench", "graph", "--context", "100000", "--decode-tokens", "100000"), "context"),
        (("bench", "graph", "--decode-tokens", "128"), "context"), (("bench", "graph", "--repeats", "0"),
        "repeats"),
        (("bench", "graph", "--context", "-1"), "context"), (("bench", "graph", "absent"), "absent"),
        (("bench",), "GRAPH"), (("eval", "graph", "--data", "prose", "--block-size", "130"), "block"),
        (("eval", "graph", "--data", "prose", "--block-size", "32", "--windows", "0"), "windows"),
        (("eval", "graph", "--data", "prose", "--block-size", str(10**20)), "block"),
    )  # fmt: skip
    arguments, names = bench.random.choice(options)
    return Request(arguments, names)


GENERATORS: tuple[Generator, ...] = tuple(
    Generator(f"graph: {name}", classes, make, count)
    for name, classes, make, count in (
        ("not ONNX", (53, 74, 75), not_onnx, 120),
        ("no file", (52, 55), no_file, 30),
        ("data outside", (79,), outside, 60),
        ("linked data", (80,), linked, 12),
        ("extent", (81,), extent, 40),
        ("data file", (75, 78), data_file, 30),
        ("external keys", (82,), external_keys, 12),
        ("opset", (77,), opset, 15),
        ("operator", (84,), operator, 40),
        ("wiring", (83, 101), wiring, 60),
        ("signature", (85, 86), signature, 20),
        ("nested", (88,), nested, 9),
        ("too large", (76,), too_large, 9),
        ("cannot run", (101,), cannot_run, 20),
        ("config", (102, 103), wrong_config, 60),
        ("tokenizer", (56, 57), wrong_tokenizer, 60),
        ("prompts", (93, 94, 104), prompts, 40),
        ("contexts", (103, 104), contexts, 25),
    )
)
