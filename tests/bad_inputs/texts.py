"""Malformed text: files that hold none, too little, the wrong kind, or what is not text."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.bad_inputs.cases import Bench, Generator, Request

SIZES = ("--block-size", "32", "--windows", "4", "--threads", "1")


def met(bench: Bench, name: str, *options: str, names: str | None = None, says: str = "") -> Request:
    """Return a verb that reads a text file for training and calibration, or as held-out text."""
    bench.take("ckpt")
    bench.take("prose")
    commands = (
        ("quantize", "ckpt", "--data", name, *SIZES, *options),
        ("prune", "ckpt", "--data", name, *SIZES, *options),
        ("eval", "ckpt", "--data", name, *SIZES, *options),
        ("eval", "ckpt", "--data", "prose", "--eval-data", name, *SIZES, *options),
        ("train", "--vocab-size", "300", "--layers", "1", "--data", name, *SIZES, *options),
    )
    return Request(bench.random.choice(commands), name if names is None else names, says)


def nothing(bench: Bench) -> Request:
    """Offer a file or a folder without text."""
    name = bench.random.choice(("a.txt", "a.md", "a.jsonl", "a.csv", "a.parquet", "folder"))
    if name == "folder":
        (bench.folder / name).mkdir()
        if bench.random.random() < 0.5:
            bench.write("folder/a.txt", " \n\t\n")
            bench.write("folder/script.py", "open('MARK', 'w')")
    else:
        bench.write(name, bench.random.choice(("", " ", "\n\n\n", "\t \r\n", "\ufeff")))
    return met(bench, name)


def too_short(bench: Bench) -> Request:
    """Offer fewer tokens than a window takes."""
    bench.take("ckpt")
    bench.take("prose")
    bench.write("short.txt", "Too few words."[: bench.random.randrange(1, 14)])
    option = bench.random.choice(("--eval-data", "--data"))
    other = ("--data", "prose") if option == "--eval-data" else ("--eval-data", "prose")
    return Request(("quantize", "ckpt", option, "short.txt", *other, *SIZES), option, "fewer than one window")


def not_text(bench: Bench) -> Request:
    """Put bytes into a text file that are no UTF-8, or a zero."""
    text = (bench.good / "prose" / "part0.txt").read_bytes()
    at = bench.random.randrange(len(text))
    name = bench.random.choice(("a.txt", "a.md", "a.rst", "a.jsonl", "a.csv", "folder/b.txt"))
    wrong = bench.random.choice((b"\xff", b"\x80", b"\xc3 ", b"\xed\xa0\x80", b"\0", b"\xf8\x88\x80\x80\x80"))
    if bench.random.random() < 0.2:
        bench.write(name, text[:300].decode().encode(bench.random.choice(("utf-16", "utf-32", "utf-16-le"))))
    else:
        bench.write(name, text[:at] + wrong + text[at:])
    return met(bench, name.split("/")[0])


def bad_line(bench: Bench) -> Request:
    """Put a line into JSONL that is no object, or has no text."""
    lines = [json.dumps({"text": f"Line {i} says that {i} is {i}, and that is all."}) for i in range(60)]
    wrong = bench.random.choice(
        ("{", "[]", "3", "null", '"x"', '{"text": 3}', '{"text": ["a"]}', '{"other": "x"}', "{'text': 'x'}",
         '{"text": "a"} {"text": "b"}', '{"text": "\\ud800"}', "[" * 20_000, '{"text": NaN}', "x" * 5000,
         '{"messages": []}', '{"messages": "x"}', '{"messages": [{"role": "user"}]}', '{"messages": [3]}',
         '{"prompt": 3, "response": "x"}', '{"prompt": "x", "response": {}}',
         '{"messages": [{"role": "assistant", "content": 3}]}', '{"text": {"a": 1}}', '{"text": tru}')
    )  # fmt: skip
    at = bench.random.randrange(len(lines))
    lines.insert(at, wrong)
    bench.write("a.jsonl", "\n".join(lines))
    return met(bench, "a.jsonl", names=f"a.jsonl:{at + 1}")


def wrong_column(bench: Bench) -> Request:
    """Ask for a column that a table has not."""
    rows = [f"Row {i} says that {i} is {i}." for i in range(80)]
    name = bench.random.choice(("a.csv", "a.parquet", "a.jsonl"))
    column = bench.random.choice(("absent", "", "TEXT", "text ", "\x1b[31m", "x" * 400, "0"))
    if name == "a.csv":
        bench.write(name, "body,title\n" + "\n".join(f'"{row}",t' for row in rows))
    elif name == "a.parquet":
        pq.write_table(pa.table({"body": rows}), bench.folder / name)
    else:
        bench.write(name, "\n".join(json.dumps({"body": row}) for row in rows))
    options = ("--text-column", column) if bench.random.random() < 0.7 else ()
    return met(bench, name, *options, says="column")


def bad_table(bench: Bench) -> Request:
    """Damage a CSV or a Parquet file, or give it values that are no text."""
    name = bench.random.choice(("a.csv", "a.parquet", "a.parquet", "a.parquet"))
    if name == "a.csv":
        text: str | bytes = bench.random.choice(
            ('text\n"open\n' + "x\n" * 40, "text,text,text\na\n", "text\na,b,c\nd\n", "\x01\x02\n", '"',
            ",,,\n", "id,text\n1,a\n2\n", "text\nHello, world\n", 'id,text\n1,"a" b\n', "id;text\n1;a\n",
            'text\n"say \\"no\\""\n',
             'a,b\n"x', "text\n" + '"' * 999)
        )  # fmt: skip
        bench.write(name, text)
        return met(bench, name)
    rows: list[Any] = [f"Row {i} says that {i} is {i}." for i in range(80)]
    sink = io.BytesIO()
    kind = bench.random.randrange(4)
    columns = {"text": list(range(80)) if kind == 0 else [[row] for row in rows] if kind == 1 else rows}
    pq.write_table(pa.table(columns), sink)
    data = sink.getvalue()
    if kind == 2:
        data = data[: bench.random.randrange(len(data))]
    elif kind == 3:
        data = bench.random.choice(
            (b"PAR1" + bench.random.randbytes(400) + b"PAR1", gzip.compress(data),
            bench.random.randbytes(900),
             b"PAR1" + b"\xff" * 40 + b"\xff\xff\xff\x7f" + b"PAR1", data[:200] + data[240:], b"PAR1PAR1",
             data[:-8] + b"\x01\x00\x00\x00PAR1", data[:-8] + b"\xff\xff\xff\xffPAR1")
        )  # fmt: skip
    bench.write(name, data)
    return met(bench, name)


def other_kinds(bench: Bench) -> Request:
    """Offer archives, scripts, pickles and other files that text is not read from."""
    name = bench.random.choice(
        ("a.zip", "a.tar", "a.gz", "a.py", "a.pkl", "a.bin", "a.npz", "a.npy", "a.arrow", "a.xlsx",
        "a.txt.gz",
         "a.jsonl.zst", "a", ".txt", "a.html", "a.exe", "a.ipynb", "a.parquet.py", "a.csv.pkl", "a.\x1b[2J")
    )  # fmt: skip
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../escaped.txt", "x" * 100_000)
    bench.write(name, bench.random.choice((buffer.getvalue(), b"import os\nopen('MARK', 'w')\n", bytes(99))))
    return met(bench, name, names=name.replace("\x1b", "\ufffd"))


def no_file(bench: Bench) -> Request:
    """Offer what is not there, or cannot be read as a file."""
    name = "a.txt"
    match bench.random.randrange(6):
        case 0:
            os.mkfifo(bench.folder / name)
        case 1:
            (bench.folder / name).symlink_to(name)
        case 2:
            (bench.folder / name).symlink_to("/dev/zero")
        case 3:
            name = bench.random.choice(
                ("absent.txt", "absent/a.txt", "x" * 300 + ".txt", "http:/example.org/a.txt")
            )
        case 4:
            (bench.folder / name).symlink_to("absent")
        case _:
            (bench.folder / "folder.txt").mkdir()
            name = "folder.txt"
    return met(bench, name, names=name[:100])


def repeated(bench: Bench) -> Request:
    """Hold out what is trained on."""
    bench.take("ckpt")
    prose = bench.take("prose")
    other = bench.random.choice(
        ("prose", "prose/part1.txt", "prose/../prose/part0.txt", "./prose", "link-to-prose", "copy.txt")
    )
    (bench.folder / "link-to-prose").symlink_to(prose)
    bench.write("copy.txt", (prose / "part2.txt").read_bytes())
    # `eval` trains on nothing, and reads what is held out alone.
    return Request(
        ("quantize", "ckpt", "--data", "prose", "--eval-data", other, *SIZES),
        "copy.txt" if other == "copy.txt" else "prose",
    )


def long_line(bench: Bench) -> Request:
    """Offer a gigabyte in one line, and more than any memory; both files are holes."""
    name = bench.random.choice(("a.txt", "a.jsonl", "a.csv", "a.parquet"))
    with (bench.folder / name).open("wb") as file:
        file.truncate(bench.random.choice((1 << 30, 1 << 36, 1 << 42)))
    return met(bench, name)


GENERATORS: tuple[Generator, ...] = tuple(
    Generator(f"text: {name}", classes, make, count)
    for name, classes, make, count in (
        ("nothing", (63, 64, 71), nothing, 40),
        ("too short", (65,), too_short, 20),
        ("not text", (66,), not_text, 120),
        ("bad line", (67,), bad_line, 80),
        ("wrong column", (68,), wrong_column, 40),
        ("bad table", (67, 68), bad_table, 100),
        ("other kinds", (71, 72), other_kinds, 60),
        ("no file", (52, 63, 97), no_file, 16),
        ("held out and trained on", (70,), repeated, 12),
        ("long line", (69,), long_line, 12),
    )
)
