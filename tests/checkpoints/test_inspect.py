"""Damaged, hostile and unsupported checkpoints are refused quickly, with file, cause and remedy."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from roots_compress.checkpoints.checkpoint import save_checkpoint
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.errors import InputError
from roots_compress.families.gguf.families import GGUF_FAMILIES
from roots_compress.families.refused import FROM_FOLDERS, GGUF_NAMES, REFUSED, Refused
from roots_compress.families.registry import FAMILIES
from roots_compress.io.safetensors_header import read_header
from roots_compress.models.limits import Limits
from tests.families.gguf_files import gguf_model, write_gguf
from tests.families.sources import save_source, source_model
from tests.tiny import tiny_checkpoint, tiny_layer


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    save_checkpoint(tiny_checkpoint(), tmp_path / "ckpt")
    return tmp_path / "ckpt"


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save_source(source_model("llama"), tmp_path / "llama")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return save_source(source_model("llama"), tmp_path / "sharded", max_shard_size="40KB")


def refusal(source: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        inspect_source(source)
    assert caught.value.where is not None
    return caught.value


def header_file(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    """Write a safetensors file with any header, and any claim about its length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(shape: list[Any], offsets: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_roots_directory_is_described(roots: Path) -> None:
    info = inspect_source(roots)
    assert (info.kind, info.model_type) == ("roots", "roots")
    parameters = tiny_checkpoint().model.num_parameters()
    assert info.parameters == parameters


def test_family_directory_is_described(llama: Path) -> None:
    info = inspect_source(llama)
    assert (info.kind, info.model_type) == ("transformers", "llama")
    assert info.spec.width == 32
    assert info.limits == Limits(info.spec.max_positions, fusible=False)


def test_inspecting_needs_no_torch(roots: Path, llama: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from roots_compress.checkpoints.inspect import inspect_source;"
        "[inspect_source(Path(source)) for source in sys.argv[1:]];"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(roots), str(llama)], check=True, timeout=60)


@pytest.mark.parametrize("name", ["nothing", "no\0thing"])
def test_missing_path(tmp_path: Path, name: str) -> None:
    assert "no such file" in refusal(tmp_path / name).message


def test_file_that_is_not_gguf(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"something else")
    assert "GGUF" in refusal(tmp_path / "model.gguf").message


def test_directory_without_config(tmp_path: Path) -> None:
    assert "config.json" in refusal(tmp_path).message


@pytest.mark.parametrize("names", [["checkpoint-500", "checkpoint-1000"], ["snapshots/0a1b"]])
def test_a_folder_of_other_programs_checkpoints_names_one(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        save_source(source_model("llama"), tmp_path / name)
    assert refusal(tmp_path).remedy == f"Name {tmp_path / names[-1]}."


def test_the_folder_of_a_stage_names_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    assert refusal(tmp_path).remedy == f"Name {tmp_path / 'checkpoint'}."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"model_type": "roots"', "not valid JSON"),
        ('{"model_type": "roots", "model_type": "llama"}', "twice"),
        ("[1]", "list"),
        ('{"norm_eps": NaN}', "NaN"),
        ("[" * 100_000, "nested"),
        ("{}", "model_type"),
        ('{"model_type": 3}', "model_type"),
        ('{"model_type": "lama"}', "did you mean 'llama'"),
        ('{"model_type": "mamba"}', "not supported"),
        ('{"model_type": "llama", "auto_map": {"AutoConfig": "evil.Config"}}', "code"),
    ],
)
def test_bad_config(roots: Path, text: str, expected: str) -> None:
    (roots / "config.json").write_text(text)
    error = refusal(roots)
    assert expected in error.message
    assert "config.json" in str(error.where)


def test_config_that_is_not_utf8(roots: Path) -> None:
    (roots / "config.json").write_bytes(b"\xff\xfe{}")
    assert "UTF-8" in refusal(roots).message


def test_only_pickle_weights(roots: Path) -> None:
    (roots / "model.safetensors").rename(roots / "pytorch_model.bin")
    error = refusal(roots)
    assert "pickle" in error.message
    assert "save_pretrained" in str(error.remedy)


def test_no_weights(roots: Path) -> None:
    (roots / "model.safetensors").unlink()
    assert "model.safetensors" in refusal(roots).message


def test_no_tokenizer(roots: Path) -> None:
    (roots / "tokenizer.json").unlink()
    assert "tokenizer" in refusal(roots).message


def test_tokenizer_with_code(roots: Path) -> None:
    (roots / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.Tokenizer", null]}}')
    assert "code" in refusal(roots).message


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "0 bytes": (lambda p: p.write_bytes(b""), "0 bytes"),
    "7 bytes": (lambda p: p.write_bytes(b"1234567"), "7 bytes"),
    "zip pickle": (lambda p: torch.save({"a": torch.zeros(2)}, p), "zip archive"),
    "plain pickle": (lambda p: p.write_bytes(b"\x80\x02}q\x00." + bytes(64)), "pickle"),
    "git-lfs": (lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid"), "git-LFS"),
    "length 2**63": (lambda p: header_file(p, {}, length=2**63), "limit"),
    "over 100 MB": (lambda p: header_file(p, {}, length=100_000_001), "limit"),
    "longer than the file": (lambda p: header_file(p, {}, length=1000), "1000 bytes"),
    "not JSON": (lambda p: header_file(p, b"{'a'}"), "not valid JSON"),
    "a list": (lambda p: header_file(p, [1]), "list"),
    "two of a name": (lambda p: header_file(p, b'{"a": {}, "a": {}}'), "twice"),
    "no shape": (lambda p: header_file(p, {"a": {"dtype": "F32"}}), "exactly"),
    "float8": (lambda p: header_file(p, {"a": entry([1], [0, 1], "F8_E4M3")}, bytes(1)), "F8_E4M3"),
    "negative shape": (lambda p: header_file(p, {"a": entry([-1], [0, 4])}, bytes(4)), "no tensor can have"),
    "boolean shape": (lambda p: header_file(p, {"a": entry([True], [0, 4])}, bytes(4)), "no tensor can have"),
    "sides of thousands of digits": (
        lambda p: header_file(p, {"a": entry([10**4000] * 2000, [0, 4])}, bytes(4)),
        "no tensor can have",
    ),
    "100,000 axes": (
        lambda p: header_file(p, {"a": entry([1] * 100_000, [0, 4])}, bytes(4)),
        "no tensor can",
    ),
    "shape product": (lambda p: header_file(p, {"a": entry([3], [0, 8])}, bytes(8)), "does not take"),
    "overflowing shape": (lambda p: header_file(p, {"a": entry([2**40] * 2, [0, 0])}), "does not take"),
    "overlap": (
        lambda p: header_file(p, {"a": entry([2], [0, 8]), "b": entry([2], [4, 12])}, bytes(12)),
        "overlaps",
    ),
    "hole": (lambda p: header_file(p, {"a": entry([1], [4, 8])}, bytes(8)), "hole"),
    "beyond the file": (lambda p: header_file(p, {"a": entry([4], [0, 16])}, bytes(8)), "8 bytes"),
    "trailing bytes": (lambda p: header_file(p, {"a": entry([1], [0, 4])}, bytes(8)), "8 bytes"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights(roots: Path, damage: str) -> None:
    break_it, expected = DAMAGE[damage]
    break_it(roots / "model.safetensors")
    error = refusal(roots)
    assert expected in error.message
    assert "model.safetensors" in str(error.where)
    assert error.remedy


def test_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    """A header of 128 bytes begins with the byte that a pickle begins with."""
    text = json.dumps({"a": entry([1], [0, 4])}).encode().ljust(0x80)
    assert list(read_header(header_file(tmp_path / "x.safetensors", text, bytes(4)))) == ["a"]


def test_header_of_many_tensors_is_quick(tmp_path: Path) -> None:
    header = {f"t{i}": entry([1], [4 * i, 4 * i + 4]) for i in range(20_000)}
    assert len(read_header(header_file(tmp_path / "x.safetensors", header, bytes(80_000)))) == 20_000


@pytest.mark.parametrize("kind", ["fifo", "device", "loop", "directory"])
def test_weights_that_are_no_regular_file(roots: Path, kind: str) -> None:
    weights = roots / "model.safetensors"
    weights.unlink()
    match kind:
        case "fifo":
            os.mkfifo(weights)
        case "device":
            weights.symlink_to("/dev/zero")
        case "loop":
            weights.symlink_to(weights)
        case "directory":
            weights.mkdir()
    refusal(roots)


@pytest.mark.parametrize("target", ["/dev/zero", "loop"])
def test_source_that_is_no_regular_file(tmp_path: Path, target: str) -> None:
    (tmp_path / "loop").symlink_to(target)
    refusal(tmp_path / "loop")


def edit_index(directory: Path, edit: Callable[[dict[str, str]], object]) -> None:
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    edit(index["weight_map"])
    path.write_text(json.dumps(index))


def test_sharded_directory_is_described(sharded: Path, llama: Path) -> None:
    assert inspect_source(sharded).parameters == inspect_source(llama).parameters


def test_an_index_without_a_map(sharded: Path) -> None:
    for weights in (None, {"lm_head.weight": 3}):
        (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
        assert "has no weight_map from tensors to files" in refusal(sharded).message


def test_more_layers_than_tensors(llama: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 999}))
    assert "has 999 layers, and the weights only" in refusal(llama).message


def test_absent_shard(sharded: Path) -> None:
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.unlink()
    assert shard.name in str(refusal(sharded).where)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "model.bin"])
def test_shard_outside_the_directory(sharded: Path, name: str) -> None:
    edit_index(sharded, lambda shard_of: shard_of.update({"lm_head.weight": name}))
    assert name in refusal(sharded).message


def test_tensor_in_two_shards(sharded: Path) -> None:
    shards = sorted(sharded.glob("*.safetensors"))
    save_file({next(iter(read_header(shards[0]))): torch.zeros(1)}, shards[1])
    assert "again" in refusal(sharded).message


def test_tensor_the_index_does_not_name(sharded: Path) -> None:
    name = max(read_header(max(sharded.glob("*.safetensors"), key=lambda shard: len(read_header(shard)))))
    edit_index(sharded, lambda shard_of: shard_of.pop(name))
    assert name in refusal(sharded).message


def test_tensor_in_no_shard(sharded: Path) -> None:
    shard = sorted(sharded.glob("*.safetensors"))[0].name
    edit_index(sharded, lambda shard_of: shard_of.update({"ghost.weight": shard}))
    assert "ghost.weight" in refusal(sharded).message


def gguf_string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def gguf_file(path: Path, keys: dict[str, str | int], tensors: bytes = b"", count: int = 0) -> Path:
    """Write a GGUF file of strings and whole numbers."""
    data = b"GGUF" + struct.pack("<IQQ", 3, count, len(keys))
    for key, value in keys.items():
        data += gguf_string(key)
        if isinstance(value, str):
            data += struct.pack("<I", 8) + gguf_string(value)
        else:
            data += struct.pack("<II", 4, value)
    path.write_bytes(data + tensors)
    return path


def test_gguf_is_described(tmp_path: Path) -> None:
    model = gguf_model("llama")
    info = inspect_source(write_gguf(tmp_path / "m.gguf", model))
    assert (info.kind, info.model_type, info.config["llama.context_length"]) == ("gguf", "llama", 64)
    assert info.parameters == model.num_parameters()
    assert info.vocab_size == model.config.vocab_size
    assert info.limits == Limits(max_context=64, fusible=False)


@pytest.mark.parametrize("width", [8, 16])
def test_gguf_tells_whether_its_attention_fuses(tmp_path: Path, width: int) -> None:
    path = write_gguf(tmp_path / "m.gguf", gguf_model("llama", head_dim=width))
    assert inspect_source(path).limits.fusible == (width % 16 == 0)


@pytest.mark.parametrize(
    ("switches", "fusible"),
    [
        ({"layers": [tiny_layer(head_dim=16)] * 2}, True),
        ({"layers": [tiny_layer(head_dim=16), tiny_layer()]}, False),
        ({"position": "learned"}, True),
        ({"position": "learned", "attention": {"kind": "top_m", "top_m": 4}}, False),
    ],
)
def test_a_directory_tells_what_its_model_does(
    tmp_path: Path, switches: dict[str, Any], fusible: bool
) -> None:
    checkpoint = tiny_checkpoint(**switches)
    save_checkpoint(checkpoint, tmp_path / "ckpt")
    assert inspect_source(tmp_path / "ckpt").limits == Limits(max_context=128, fusible=fusible)
    assert checkpoint.model.config.is_fusible == fusible


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"general.architecture": "mamba"}, "mamba"),
        ({"general.architecture": "gemma"}, "gemma"),
        ({"general.name": "x"}, "general.architecture"),
        ({"general.architecture": "llama", "llama.expert_group_count": 8}, "expert_group_count"),
        ({"general.architecture": "llama", "general.alignment": 0}, "alignment"),
        ({"general.architecture": "llama", "general.alignment": 48}, "alignment 48, which is no power of 2"),
    ],
)
def test_gguf_beyond_us(tmp_path: Path, keys: dict[str, str | int], expected: str) -> None:
    assert expected in refusal(gguf_file(tmp_path / "m.gguf", keys)).message


def gguf_tensor(name: str, shape: list[int], kind: int = 0, offset: int = 0) -> bytes:
    layout = f"<I{len(shape)}QIQ"
    return gguf_string(name) + struct.pack(layout, len(shape), *shape, kind, offset)


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (gguf_tensor("token_embd.weight", [4, 4]), "need"),
        (gguf_tensor("x", [33], kind=8), "rows of 33"),
        (gguf_tensor("x", [1], kind=999), "999"),
        (gguf_tensor("x", [1] * 5), "5 axes"),
        (b"\x05", "middle"),
        (struct.pack("<Q", 2**62), "string"),
    ],
)
def test_gguf_with_a_bad_tensor(tmp_path: Path, tensor: bytes, expected: str) -> None:
    path = gguf_file(tmp_path / "m.gguf", {"general.architecture": "llama"}, tensor, count=1)
    assert expected in refusal(path).message


@pytest.mark.parametrize(
    ("alignment", "first", "second"),
    [(None, 0, 8), (None, 32, 0), (None, 0, 64), (64, 0, 32), (8, 0, 32), (None, 1, 32)],
)
def test_gguf_tensors_lie_one_after_another_each_aligned(
    tmp_path: Path, alignment: int | None, first: int, second: int
) -> None:
    keys: dict[str, str | int] = {"general.architecture": "llama"}
    keys |= {} if alignment is None else {"general.alignment": alignment}
    tensors = gguf_tensor("a", [4], offset=first) + gguf_tensor("b", [4], offset=second)
    path = gguf_file(tmp_path / "m.gguf", keys, tensors, count=2)
    path.write_bytes(path.read_bytes() + bytes(256))
    assert f"{'a' if first else 'b'!r} begins at byte" in refusal(path).message


def test_truncated_gguf(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "m.gguf", {"general.architecture": "llama", "llama.block_count": 2})
    whole = path.read_bytes()
    for size in range(4, len(whole)):
        path.write_bytes(whole[:size])
        refusal(path)


def test_gguf_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 7, 0, 0))
    assert "version 7" in refusal(tmp_path / "m.gguf").message
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 0, 0))
    assert "big-endian" in refusal(tmp_path / "m.gguf").message


def test_weights_that_nothing_reads_are_told(llama: Path, sharded: Path) -> None:
    assert inspect_source(llama).unread == inspect_source(sharded).unread == ()
    others = ("consolidated.safetensors", "model-00009-of-00009.safetensors", "pytorch_model.bin")
    for folder in (llama, sharded):
        for name in others:
            (folder / name).write_bytes(b"")
        assert inspect_source(folder).unread == others


def test_a_directory_of_gguf_files_names_them(roots: Path) -> None:
    (roots / "model.safetensors").unlink()
    (roots / "m.gguf").write_bytes(b"")
    assert str(roots / "m.gguf") in str(refusal(roots).remedy)
    (roots / "config.json").unlink()
    assert str(roots / "m.gguf") in str(refusal(roots).remedy)


@pytest.mark.parametrize(("name", "refused"), REFUSED.items())
def test_a_model_that_people_ask_for_is_refused_with_the_nearest(
    name: str, refused: Refused, tmp_path: Path
) -> None:
    assert name not in FAMILIES
    assert refused.nearest in FAMILIES
    save_source(source_model("llama"), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": name}))
    with pytest.raises(InputError, match="nearest family that is read is") as caught:
        inspect_source(tmp_path)
    assert refused.why in caught.value.message
    assert "is added" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("deepseek32", "indexer"),
        ("minicpm3", "Hugging Face directory, from which"),
        ("bloom", "ALiBi"),
        ("t5", "Hugging Face directory, from which"),
        ("chameleon", "if its family is"),
    ],
)
def test_a_gguf_of_such_a_model_is_refused_alike(architecture: str, said: str, tmp_path: Path) -> None:
    assert not ({*GGUF_NAMES, *FROM_FOLDERS} & {*GGUF_FAMILIES})
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", architecture)
    writer.add_tensor("token_embd.weight", np.ones((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError) as caught:
        inspect_source(tmp_path / "m.gguf")
    assert said in f"{caught.value.message} {caught.value.remedy}"
