"""Malformed weights: safetensors headers that contradict themselves, the file or the configuration."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.bad_inputs.cases import Bench, Generator, Request
from tests.bad_inputs.checkpoints import WEIGHTS, edit, met

INDEX = "model.safetensors.index.json"


def read_parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the header of a safetensors file, and the bytes after it."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_parts(path: Path, header: Any, data: bytes, *, length: int | None = None) -> None:
    """Write a safetensors file of any header, under any claim of its length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def header(bench: Bench) -> Request:
    """Contradict the file in one entry of its header."""
    path = bench.take("llama") / WEIGHTS
    entries, data = read_parts(path)
    name = bench.random.choice([key for key in entries if key != "__metadata__"])
    entry = entries[name]
    start, end = entry["data_offsets"]
    shape = entry["shape"]
    changes: tuple[dict[str, Any], ...] = (
        {"data_offsets": [start + 4, end + 4]}, {"data_offsets": [start, end + 4]},
        {"data_offsets": [start, end - 4]}, {"data_offsets": [end, start]}, {"data_offsets": [start]},
        {"data_offsets": [-4, end]}, {"data_offsets": ["0", "4"]}, {"data_offsets": [start, 2**63]},
        {"data_offsets": None}, {"data_offsets": [start, float(end)]}, {"shape": [*shape, 2]},
        {"shape": [-side for side in shape]}, {"shape": [2**62, 4]}, {"shape": [2**40, 2**40]},
        {"shape": "x"},
        {"shape": [True]}, {"shape": [0]}, {"shape": [1] * 2000}, {"dtype": "F64"}, {"dtype": "F8_E4M3"},
        {"dtype": "F4"}, {"dtype": "object"}, {"dtype": 3}, {"dtype": None}, {"extra": 1},
    )  # fmt: skip
    entry.update(bench.random.choice(changes))
    write_parts(path, entries, data)
    return met(bench, "llama", WEIGHTS)


def length(bench: Bench) -> Request:
    """Claim another length of the header than it has."""
    path = bench.take("llama") / WEIGHTS
    entries, data = read_parts(path)
    claims = (0, 1, 7, 2**63, 2**64 - 1, 100_000_001, 10**12, len(data) * 10, 2**31)
    true = len(json.dumps(entries).encode())
    claimed = bench.random.choice((*claims, bench.random.randrange(1, true)))
    write_parts(path, entries, data, length=claimed)
    return met(bench, "llama", "llama/model.safetensors")


def cut(bench: Bench) -> Request:
    """Cut the file short anywhere, or let it go on."""
    path = bench.take("ckpt") / WEIGHTS
    data = path.read_bytes()
    kept = bench.random.choice((0, 1, 7, 8, 9, len(data) - 1, bench.random.randrange(len(data))))
    path.write_bytes(
        data[:kept] if bench.random.random() < 0.8 else data + bytes(bench.random.randrange(1, 99))
    )
    return met(bench, "ckpt", WEIGHTS)


def impostor(bench: Bench) -> Request:
    """Offer something else under the weights' name."""
    path = bench.take("llama") / WEIGHTS
    match bench.random.randrange(7):
        case 0:
            torch.save({"a": torch.zeros(2)}, path)
        case 1:
            path.write_bytes(pickle.dumps({"a": [1, 2]}, protocol=bench.random.randrange(6)))
        case 2:
            path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 100\n")
        case 3:
            path.write_bytes(bench.random.randbytes(bench.random.randrange(1, 5000)))
        case 4:
            path.write_bytes(b"GGUF" + bytes(100))
        case 5:
            path.write_bytes(b"<!doctype html><title>404</title>")
        case _:
            path.write_bytes(b"\x1f\x8b\x08" + bytes(200))
    return met(bench, "llama", WEIGHTS)


def header_text(bench: Bench) -> Request:
    """Give a header that is not one JSON object of entries."""
    path = bench.take("llama") / WEIGHTS
    entries, data = read_parts(path)
    text = json.dumps(entries).encode()
    texts = (
        b"[]", b"3", b"{", b"{}", b'{"a": {}}', b'{"a": {}, "a": {}}', b'{"a": 3}', b"{'a': 1}",
        b"[" * 50_000,
        b'{"x":' * 50_000, text[:-1], text + b"}", b"\xff" + text[1:], text.replace(b"F32", b"f32"),
        b'{"__metadata__": {}}', text.replace(b'"shape"', b'"shapes"', 1), text + b"\0" * 8,
    )  # fmt: skip
    write_parts(path, bench.random.choice(texts), data)
    return met(bench, "llama", "llama", as_student=False)


def layout(bench: Bench) -> Request:
    """Let tensors overlap, leave holes, or describe more than there is."""
    path = bench.take("llama") / WEIGHTS
    entries, data = read_parts(path)
    names = sorted(
        (key for key in entries if key != "__metadata__"), key=lambda key: entries[key]["data_offsets"]
    )
    match bench.random.randrange(4):
        case 0:
            a, b = (bench.random.choice(names[1:]) for _ in range(2))
            entries[a]["data_offsets"] = [0, entries[a]["data_offsets"][1] - entries[a]["data_offsets"][0]]
            del b
        case 1:
            del entries[bench.random.choice(names)]
        case 2:
            entries["again"] = dict(entries[bench.random.choice(names)])
        case _:
            data += bytes(64)
            entries["far"] = {"dtype": "F32", "shape": [4], "data_offsets": [len(data) - 16, len(data)]}
    write_parts(path, entries, data)
    return met(bench, "llama", WEIGHTS)


def content(bench: Bench) -> Request:
    """Write sound safetensors that are not the configuration's."""
    family = bench.random.choice(("llama", "ckpt"))
    path = bench.take(family) / WEIGHTS
    tensors = load_file(path)
    name = bench.random.choice(sorted(tensors))
    match bench.random.randrange(8):
        case 0:
            tensors[name].view(-1)[bench.random.randrange(tensors[name].numel())] = bench.random.choice(
                (torch.nan, torch.inf, -torch.inf)
            )
        case 1:
            del tensors[name]
        case 2:
            tensors["model.layers.7.extra.weight"] = torch.zeros(3)
        case 3:
            tensors[name] = torch.zeros((*tensors[name].shape, 2))
        case 4:
            tensors[name] = tensors[name].to(bench.random.choice((torch.int64, torch.int8, torch.bool)))
        case 5:
            tensors["model.layers.99.mlp.up_proj.weight"] = torch.zeros(3, 3)
        case 6:
            tensors[name] = tensors[name][..., :-1].contiguous()
        case _:
            tensors["\x1b[31mred\x1b[0m\n<script>"] = torch.zeros(1)
    save_file(tensors, path, {"format": "pt"})
    return met(bench, family, family, as_student=False)


def ties(bench: Bench) -> Request:
    """Contradict the flag that ties the output head to the embedding."""
    if bench.random.random() < 0.5:
        folder = bench.take("untied", "model")
        edit(folder, lambda config: config.update(tie_word_embeddings=True))
    else:
        folder = bench.take("ckpt", "model")
        edit(folder, lambda config: config.update(tie_word_embeddings=False))
    return met(bench, "model", "model", as_student=False)


def shards(bench: Bench) -> Request:
    """Let the index and its shards disagree."""
    folder = bench.take("sharded")
    index = json.loads((folder / INDEX).read_text())
    shard_of = index["weight_map"]
    name = bench.random.choice(sorted(shard_of))
    files = sorted(set(shard_of.values()))
    match bench.random.randrange(7):
        case 0:
            (folder / bench.random.choice(files)).unlink()
        case 1:
            shard_of[name] = bench.random.choice(
                ("../x.safetensors", "/etc/passwd", "a/b.safetensors", "model.bin", "", ".",
                "a\0b.safetensors",
                 "x" * 300 + ".safetensors", "absent.safetensors", "\x1b[2J.safetensors")
            )  # fmt: skip
        case 2:
            del shard_of[name]
        case 3:
            shard_of["ghost.weight"] = files[0]
        case 4:
            shard_of[name] = next(file for file in files if file != shard_of[name])
        case 5:
            index["weight_map"] = bench.random.choice((None, [], {}, {name: 3}, "x", {name: None}))
        case _:
            shard = folder / shard_of[name]
            save_file({**load_file(shard), "again": torch.zeros(1)}, shard)
    (folder / INDEX).write_text(json.dumps(index))
    return met(bench, "sharded", "sharded")


GENERATORS: tuple[Generator, ...] = tuple(
    Generator(f"weights: {name}", classes, make, count)
    for name, classes, make, count in (
        ("header", (39, 42, 43, 44, 49), header, 200),
        ("length", (39, 40, 37, 38), length, 60),
        ("cut short", (37, 38, 43), cut, 150),
        ("impostor", (36, 53, 74), impostor, 60),
        ("header text", (30, 46), header_text, 17),
        ("layout", (42, 43, 47), layout, 60),
        ("content", (45, 46, 47, 48, 49), content, 120),
        ("ties", (54,), ties, 4),
        ("shards", (50, 51), shards, 40),
    )
)
