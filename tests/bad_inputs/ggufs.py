"""Malformed GGUF files."""

from __future__ import annotations

import struct
from collections.abc import Callable

from tests.bad_inputs.cases import Bench, Generator, Request
from tests.bad_inputs.checkpoints import met

NAME = "model.gguf"
HEADER = struct.Struct("<4sIQQ")


def _rewrite(bench: Bench, change: Callable[[bytes], bytes]) -> Request:
    path = bench.take(NAME)
    path.write_bytes(change(path.read_bytes()))
    return met(bench, NAME, NAME, as_student=False)


def cut(bench: Bench) -> Request:
    """Cut the file short anywhere."""
    return _rewrite(bench, lambda data: data[: bench.random.randrange(len(data) - 100)])


def counts(bench: Bench) -> Request:
    """Claim another version, or other numbers of keys and tensors."""

    def change(data: bytes) -> bytes:
        magic, version, tensors, keys = HEADER.unpack_from(data)
        huge = (0, 1, tensors + 1, 2**31, 2**63, 2**64 - 1)
        match bench.random.randrange(4):
            case 0:
                version = bench.random.choice((0, 1, 4, 99, 2**32 - 1, 0x03000000))
            case 1:
                tensors = bench.random.choice((tensors + 1, 2**31, 2**63, 2**64 - 1))
            case 2:
                keys = bench.random.choice(huge)
            case _:
                magic = bench.random.choice((b"GGML", b"FUGG", b"gguf", b"\0\0\0\0"))
        return HEADER.pack(magic, version, tensors, keys) + data[HEADER.size :]

    return _rewrite(bench, change)


INTS = ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
        "attention.head_count_kv", "vocab_size")  # fmt: skip


def numbers(bench: Bench) -> Request:
    """Give the model widths that its weights are not of."""
    key = f"llama.{bench.random.choice(INTS)}"
    value = bench.random.choice((0, 3, 5, 7, 999, 2**31, 2**32 - 1))
    if key.endswith("context_length"):
        value = bench.random.choice((0, 2**31, 2**32 - 1))

    def change(data: bytes) -> bytes:
        at = data.index(struct.pack("<Q", len(key)) + key.encode()) + 8 + len(key)
        assert data[at : at + 4] == struct.pack("<I", 4)
        return data[: at + 4] + struct.pack("<I", value) + data[at + 8 :]

    return _rewrite(bench, change)


def names(bench: Bench) -> Request:
    """Name another architecture, an unread switch, or a tensor that is not there."""
    old, new = bench.random.choice(
        ((b"llama.rope.freq_base", b"llama.rope.frex_base"), (b"\x05\0\0\0\0\0\0\0llama",
        b"\x05\0\0\0\0\0\0\0mamba"),
         (b"general.architecture", b"general.architexture"), (b"blk.0.attn_q.weight", b"blk.0.attn_x.weight"),
         (b"output_norm.weight", b"output_norx.weight"), (b"token_embd.weight", b"token_embx.weight"),
         (b"blk.1.ffn_up.weight", b"blk.0.ffn_up.weight"), (b"token_embd.weight", b"rope_freqsxweight"),
         (b"tokenizer.ggml.tokens", b"tokenizer.ggml.tokenx"), (b"tokenizer.ggml.model",
         b"tokenizer.ggml.modex"),
         (b"blk.1.ffn_up.weight", b"\x1b[31m.ffn_up.weigh\x07"))
    )  # fmt: skip
    return _rewrite(bench, lambda data: data.replace(old, new, 1))


def kinds(bench: Bench) -> Request:
    """Give values and tensors types that are not known, or strings without end."""
    key = b"llama.block_count"

    def change(data: bytes) -> bytes:
        at = data.index(struct.pack("<Q", len(key)) + key)
        match bench.random.randrange(3):
            case 0:
                kind = struct.pack("<I", bench.random.choice((13, 99, 2**32 - 1, 9, 8)))
                return data[: at + 8 + len(key)] + kind + data[at + 12 + len(key) :]
            case 1:
                return (
                    data[:at]
                    + struct.pack("<Q", bench.random.choice((2**24 + 1, 2**40, 2**63)))
                    + data[at + 8 :]
                )
            case _:
                name = b"token_embd.weight"
                at = data.index(name) + len(name)
                # The number of axes, the axes, the storage type, the place.
                changed = bytearray(data)
                where, value = bench.random.choice(
                    ((0, 5), (0, 2**31), (4, 2**31), (8, 1), (20, 99), (20, 2**31))
                )
                struct.pack_into("<I", changed, at + where, value)
                return bytes(changed)

    return _rewrite(bench, change)


def noise(bench: Bench) -> Request:
    """Follow the magic with noise."""
    return _rewrite(bench, lambda data: data[:8] + bench.random.randbytes(bench.random.randrange(1, 3000)))


GENERATORS: tuple[Generator, ...] = tuple(
    Generator(f"GGUF: {name}", (99, *classes), make, count)
    for name, classes, make, count in (
        ("cut short", (), cut, 120),
        ("counts", (39,), counts, 40),
        ("numbers", (31, 32, 45, 103), numbers, 45),
        ("names", (33, 46, 47), names, 11),
        ("types", (44, 49), kinds, 20),
        ("noise", (74,), noise, 60),
    )
)
