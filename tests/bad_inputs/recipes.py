"""Malformed recipes. Everything but the recipe is as it should be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import yaml

from tests.bad_inputs.cases import Bench, Generator, Request
from tests.bad_inputs.materials import RECIPE

NAME = "r.yaml"
WRONG: dict[type, tuple[Any, ...]] = {
    int: (None, True, "many", "4", [], {}, 1.5, [3], -1),
    float: (None, False, "half", "0.5", [], {"a": 1}, float("nan"), float("inf"), -0.5),
    bool: (None, "no", "on", "yes", 0, 1, [], {}),
    str: (None, 3, True, [], {}, 1.5),
    list: (3, True, {"a": 1}, [None], [[]], [{}], [True]),
}
"""Values that a key of each type cannot have; text among them that would be right without its quotes."""
CLOSED = {"divergence", "score", "scheme", "kind", "device"}


def refused(bench: Bench, text: str | bytes, *, names: str = NAME, says: str = "") -> Request:
    """Write a recipe and have it validated, planned or run."""
    bench.write(NAME, text)
    verb = bench.random.choice(("validate", "plan", "run"))
    if verb != "validate":
        bench.take("ckpt")
        bench.take("prose")
    return Request((verb, NAME), names, says)


def _document() -> dict[str, Any]:
    return copy.deepcopy(RECIPE)


def _text(document: Any) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return where each key of a document stands, groups included."""
    if isinstance(value, dict):
        own = [path] if path else []
        return own + [leaf for key, item in value.items() for leaf in _leaves(item, (*path, key))]
    if isinstance(value, list):
        return [path, *(leaf for index, item in enumerate(value) for leaf in _leaves(item, (*path, index)))]
    return [path]


def _set(document: Any, path: tuple[str | int, ...], value: Any) -> None:
    for part in path[:-1]:
        document = document[part]
    document[path[-1]] = value


def _get(document: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        document = document[part]
    return document


def wrong_type(bench: Bench) -> Request:
    """Give a key a value of another type."""
    document = _document()
    path = bench.random.choice([leaf for leaf in _leaves(document) if isinstance(leaf[-1], str)])
    old = _get(document, path)
    # A model or a path may be left out, which is no mistake in itself.
    choice = [
        value
        for value in WRONG.get(type(old), (3, "text", [1]))
        if not (value is None and path[-1] in ("threads", "max_perplexity_ratio", "model"))
        and not (isinstance(old, float) and value is None and path[0] == "gates")
    ]
    _set(document, path, bench.random.choice(choice))
    return refused(bench, _text(document), says=str(path[-1]))


def misspelt_key(bench: Bench) -> Request:
    """Change a letter of a key, or put a key where it does not belong."""
    document = _document()
    path = bench.random.choice([leaf for leaf in _leaves(document) if isinstance(leaf[-1], str)])
    key = str(path[-1])
    at = bench.random.randrange(len(key))
    wrong = key[:at] + bench.random.choice("qxzj_0 ") + key[at + bench.random.randrange(2) :]
    group = _get(document, path[:-1])
    group[wrong] = group.pop(key)
    return refused(bench, _text(document))


def missing_key(bench: Bench) -> Request:
    """Leave out what a recipe cannot do without."""
    document = _document()
    what = bench.random.choice(("name", "kind", "model"))
    if what == "kind":
        del document["stages"][bench.random.randrange(3)]["kind"]
    else:
        del document[what]
    return refused(bench, _text(document), says=what)


def twice(bench: Bench) -> Request:
    """Name a key twice in one group."""
    lines = _text(_document()).splitlines()
    at = bench.random.choice([i for i, line in enumerate(lines) if ": " in line and "- kind" not in line])
    lines.insert(at + 1, lines[at])
    return refused(bench, "\n".join(lines), says="second time")


def out_of_range(bench: Bench) -> Request:
    """Give a number that its key's bounds leave out."""
    document = _document()
    keys: list[tuple[tuple[str | int, ...], tuple[Any, ...]]] = [
        (("stages", 1, "ratio"), (1.0, 1.5, -0.1, 100)),
        (("data", "eval_fraction"), (0.0, 0.5, 1, -1)),
        (("evaluation", "windows"), (0, -3)),
        (("evaluation", "block_size"), (0, 7, -32, 129)),
        (("evaluation", "threads"), (0, -1, 1025, 10**9)),
        (("evaluation", "contexts"), ([], [0], [-1], [16, 0])),
        (("evaluation", "decode_tokens"), (0, 128, -2)),
        (("seed",), (-1, 2**32, 2**65)),
        (("stages", 0, "training", "steps"), (0, -1)),
        (("stages", 0, "training", "learning_rate"), (0, -1e-3)),
        (("stages", 0, "loss", "temperature"), (0, -1)),
        (("stages", 2, "group_size"), (0, 7, 33, 256)),
        (("gates", "max_perplexity_ratio"), (0, -1)),
    ]
    path, values = bench.random.choice(keys)
    _set(document, path, bench.random.choice(values))
    return refused_by_plan(bench, document, str(path[-1]))


def refused_by_plan(bench: Bench, document: Any, says: str) -> Request:
    """As `refused`, but by a verb that looks at model and text too."""
    bench.write(NAME, _text(document))
    bench.take("ckpt")
    bench.take("prose")
    return Request((bench.random.choice(("plan", "run")), NAME), NAME, says)


def out_of_choice(bench: Bench) -> Request:
    """Name what is not among the choices."""
    document = _document()
    path = bench.random.choice([leaf for leaf in _leaves(document) if leaf[-1] in CLOSED])
    _set(document, path, bench.random.choice(("", "none", "INT8", "cuda:0", "int 8", "prunee", "🤖")))
    return refused(bench, _text(document), says=str(path[-1]))


def strange_name(bench: Bench) -> Request:
    """Name the run or a stage after what no folder may be called."""
    document = _document()
    names = (
        "../up", "/abs", "a/b", "..", ".", "", "a b", "-dash", "a/", "é", "x" * 65,
        "CON:", "a\\b", "<script>", "name.",
    )  # fmt: skip
    path = bench.random.choice((("name",), ("stages", 0, "name"), ("stages", 2, "name")))
    names_here = (
        names if path == ("name",) else tuple(name for name in names if len(name) < 65 and name != "name.")
    )
    _set(document, path, bench.random.choice(names_here))
    return refused(bench, _text(document), says="name")


def stages_together(bench: Bench) -> Request:
    """Give stages that are sound one by one, and not together."""
    document = _document()
    stages = document["stages"]
    match bench.random.randrange(7):
        case 0:
            stages.reverse()
        case 1:
            stages[1]["name"] = stages[0]["name"]
        case 2:
            stages[0]["name"] = "baseline"
        case 3:
            document["stages"] = [copy.deepcopy(stage) for stage in stages * 34]
        case 4:
            del document["model"]
        case 5:
            stages.insert(0, {"kind": "train", "architecture": {"hidden_size": 64}})
        case _:
            del document["model"]
            document["stages"] = []
    return refused(bench, _text(document), says="stages" if "model" in document else "model")


def missing_paths(bench: Bench) -> Request:
    """Name what does not exist."""
    document = _document()
    absent = bench.random.choice(
        ("absent", "../absent", "/absent/x", "x" * 300, "http://example.org/m", "hf://org/model", "~",
        "$HOME",
         "${oc.env:HOME}", "a\tb", "ckpt/absent", "prose/part0.txt/x")
    )  # fmt: skip
    path = bench.random.choice((("model",), ("data", "train", 0), ("stages", 0, "student")))
    _set(document, path, absent)
    return refused_by_plan(bench, document, str(path[-1] if isinstance(path[-1], str) else path[-2]))


FIXED: dict[str, tuple[tuple[int, ...], str | bytes, str]] = {
    "empty": ((1,), "", "empty"),
    "spaces": ((1,), " \n\n", "empty"),
    "comments": ((2,), "# nothing\n# at all\n", "empty"),
    "document marks": ((2,), "---\n...\n", "empty"),
    "list": ((3,), "- name: x\n", "not a list"),
    "scalar": ((3,), "quantize\n", "not a list"),
    "number": ((3,), "42\n", "not a list"),
    "tabs": ((4,), "name: x\ndata:\n\ttrain: [prose]\n", "tab"),
    "python object": ((12,), "name: !!python/object/apply:os.system ['touch MARK']\n", "tags"),
    "python name": ((12,), "name: !!python/name:os.system\n", "tags"),
    "python module": ((12,), "!!python/object/new:os.system ['touch MARK']\n", "tags"),
    "own tag": ((12,), "name: !mine x\n", "tags"),
    "binary tag": ((12,), "name: !!binary aGk=\n", "tags"),
    "target": ((13,), "name: x\n_target_: os.system\nmodel: ckpt\n", "_target_"),
    "interpolated number": ((13,), "name: x\nmodel: ckpt\nseed: ${oc.env:SEED}\n", "seed"),
    "merge key": ((13,), "name: x\nmodel: ckpt\n<<: {seed: 3}\n", "<<"),
    "alias": ((14,), "name: &a x\nmodel: *a\n", "anchors"),
    "alias bomb": (
        (14,), "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\nname: [*c, *c]\n", "anchors",
    ),
    "cycle": ((14, 22), "name: &a [*a]\n", "anchors"),
    "brackets": ((15,), "name: " + "[" * 20_000, "deep"),
    "braces": ((15,), "{a: " * 20_000, "deep"),
    "dashes": ((15,), "- " * 20_000, "deep"),
    "10 MB": ((16,), b"name: x\n" + b"# " + b"x" * 10_000_000, "larger"),
    "many values": ((16,), "name: [" + "1, " * 60_000 + "1]", "values"),
    "long key": ((16,), "x" * 2000 + ": 1\n", ""),
    "long number": ((16,), "name: x\nmodel: ckpt\nseed: " + "9" * 5000, "digits"),
    "UTF-16": ((17,), "name: x\n".encode("utf-16"), "UTF-16"),
    "UTF-32": ((17,), "name: x\n".encode("utf-32"), ""),
    "zero byte": ((17,), "name: x\0y\n", "control character"),
    "latin-1": ((17,), b"name: caf\xe9\n", "UTF-8"),
    "escape": ((17,), "name: x\x1b[31m\n", "control character"),
    "escaped zero": ((17,), 'name: "a\\0b"\n', "not text"),
    "lone surrogate": ((17,), 'name: "\\ud800"\n', "not text"),
    "two documents": ((18,), "name: x\n---\nname: y\n", "more than one document"),
    "nothing to do": ((19,), "name: x\n", "nothing to do"),
    "no stages": ((19,), "name: x\nstages: []\n", "nothing to do"),
    "time for a number": ((9,), "name: x\nmodel: ckpt\nseed: 12:30:00\n", "12:30:00"),
    "date for a number": ((9,), "name: x\nmodel: ckpt\nseed: 2026-01-01\n", "2026-01-01"),
    "underscored number": ((7,), "name: x\nmodel: ckpt\nseed: 1_000\n", "seed"),
    "quoted number": ((7,), "name: x\nmodel: ckpt\nseed: '1e3'\n", "seed"),
    "float for a whole number": ((7, 23), "name: x\nmodel: ckpt\nseed: 1e3\n", "seed"),
    "norway": ((8,), "name: no\nmodel: ckpt\nexport: {portable: no}\n", "portable"),
    "version": ((26,), "version: 2\nname: x\nmodel: ckpt\n", "version"),
    "schema": ((26,), "schema: 99\nname: x\nmodel: ckpt\n", "schema"),
    "open quote": ((30,), "name: 'x\nmodel: ckpt\n", ""),
    "open list": ((30,), "name: x\nstages: [\n", ""),
    "colon in a value": ((30,), "name: x: y\n", ""),
    "key without space": ((30,), "name:x\nmodel:ckpt\n", ""),
    "directive": ((17,), "%YAML 9.9\n---\nname: x\n", ""),
    "directive of digits": ((17,), "%YAML 1." + "9" * 5000 + "\n---\nname: x\n", ""),
    "complex key": ((3,), "? [a, b]\n: c\n", "key"),
    "null key": ((3,), "~: c\n", "key"),
    "number as key": ((3,), "3: c\n", "key"),
}  # fmt: skip
"""Texts by name: their classes, and a word of what must be said."""


def _fixed(name: str, bench: Bench) -> Request:
    _, text, says = FIXED[name]
    return refused(bench, text, says=says)


def broken_bytes(bench: Bench) -> Request:
    """Put bytes into a sound recipe that no text has, or that YAML cannot parse there."""
    text = _text(_document())
    lines = text.splitlines(keepends=True)
    kind = bench.random.randrange(5)
    if kind == 0:
        at = bench.random.randrange(len(text))
        return refused(
            bench,
            text[:at].encode()
            + bench.random.choice((b"\xff", b"\xc3", b"\xed\xa0\x80"))
            + b" "
            + text[at:].encode(),
        )
    if kind == 1:
        at = bench.random.randrange(len(text))
        return refused(bench, text[:at] + chr(bench.random.choice((0, 1, 7, 8, 27, 127, 0x9B))) + text[at:])
    at = bench.random.randrange(1, len(lines))
    line = (
        "]\n",
        "}\n",
        "\t- x\n",
        "- - : {\n",
        "key: 'open\n",
        "*alias\n",
        "!!tag x\n",
        "@at: 1\n",
        "`tick`: 1\n",
    )
    if kind == 2:
        indented = [i for i, each in enumerate(lines) if each.startswith("  ")]
        at = bench.random.choice(indented)
        lines[at] = "\t" + lines[at].lstrip()
        return refused(bench, "".join(lines))
    lines.insert(at, bench.random.choice(line))
    return refused(bench, "".join(lines))


def random_text(bench: Bench) -> Request:
    """Write what was never a recipe."""
    alphabet = "abc: -[]{},#'\"!&*|>%@`\n\t0123456789."
    size = bench.random.randrange(1, 400)
    return refused(bench, "".join(bench.random.choice(alphabet) for _ in range(size)))


def folder_for_a_recipe(bench: Bench) -> Request:
    """Name a folder, a pipe or nothing for the recipe."""
    import os

    match bench.random.randrange(4):
        case 0:
            (bench.folder / NAME).mkdir()
        case 1:
            os.mkfifo(bench.folder / NAME)
        case 2:
            (bench.folder / NAME).symlink_to(NAME)
        case _:
            (bench.folder / NAME).symlink_to("/dev/zero")
    return Request((bench.random.choice(("validate", "plan", "run")), NAME), NAME)


def own_stage_names(bench: Bench) -> Request:
    """Choose what only another kind of stage understands."""
    document = _document()
    wrong = bench.random.choice(
        (
            (0, "ratio", 0.5),
            (1, "scheme", "int8"),
            (2, "student", "small"),
            (1, "teacher", "ckpt"),
            (2, "steps", 4),
        )
    )
    document["stages"][wrong[0]][wrong[1]] = wrong[2]
    return refused(bench, _text(document), says=str(wrong[1]))


_MADE: tuple[tuple[str, tuple[int, ...], Callable[[Bench], Request], int], ...] = (
    ("wrong type", (7, 8, 10, 11, 23), wrong_type, 400),
    ("misspelt key", (6,), misspelt_key, 400),
    ("missing key", (6,), missing_key, 5),
    ("key twice", (5,), twice, 40),
    ("out of range", (11, 93, 94), out_of_range, 60),
    ("out of choice", (6, 23), out_of_choice, 60),
    ("strange name", (24,), strange_name, 45),
    ("stages together", (19, 20, 21), stages_together, 12),
    ("missing paths", (13, 27, 97), missing_paths, 60),
    ("keys of other stages", (6,), own_stage_names, 8),
    ("broken bytes", (4, 14, 17, 30), broken_bytes, 400),
    ("random text", (3, 30), random_text, 400),
    ("no file for a recipe", (27, 52), folder_for_a_recipe, 8),
)

GENERATORS: tuple[Generator, ...] = (
    *(Generator(f"recipe: {name}", classes, make, count) for name, classes, make, count in _MADE),
    *(Generator(f"recipe: {name}", FIXED[name][0], partial(_fixed, name), 1) for name in FIXED),
)
