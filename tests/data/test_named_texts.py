"""Records of several named texts: pairs and instructions, by names of public sets and of one's own."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from roots_compress.configs.data import DataConfig, FieldsConfig, RecordKind
from roots_compress.data.corpora import load_held_out, load_text
from roots_compress.data.documents import Document, Span
from roots_compress.errors import InputError


def read(path: Path, kind: RecordKind, **fields: str) -> list[Document]:
    config = DataConfig(eval=(path,), fields=FieldsConfig(**fields))
    return list(load_held_out(config, seed=0, kind=kind).held_out)


def jsonl(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def pair(source: str, target: str) -> Document:
    return Document((Span(source, False, "source"), Span(target, True, "target")))


def chat(*turns: str) -> Document:
    roles = ("user", "assistant") * len(turns)
    return Document(tuple(Span(t, r == "assistant", r) for t, r in zip(turns, roles, strict=False)))


def test_pairs_are_read_from_every_kind_of_table(tmp_path: Path) -> None:
    want = [pair("one", "eins"), pair("two", "zwei")]
    (tmp_path / "a.csv").write_text("source,target\none,eins\ntwo,zwei\n")
    (tmp_path / "b.jsonl.gz").write_bytes(
        gzip.compress(b'{"article": "one", "highlights": "eins"}\n{"article": "two", "highlights": "zwei"}\n')
    )
    rows = [{"en": "one", "de": "eins"}, {"en": "two", "de": "zwei"}]
    pq.write_table(pa.table({"translation": rows, "id": [1, 2]}), tmp_path / "c.parquet")
    assert read(tmp_path / "a.csv", "pairs") == want
    assert read(tmp_path / "b.jsonl.gz", "pairs") == want
    assert read(tmp_path / "c.parquet", "pairs", source="translation.en", target="translation.de") == want
    assert want[0].named("target") == "eins"


@pytest.mark.parametrize(
    ("record", "turns"),
    [
        ({"prompt": "q", "response": "a"}, ("q", "a")),
        ({"prompt": "q", "completion": "a", "id": 3}, ("q", "a")),
        ({"instruction": "q", "input": "about", "output": "a"}, ("q\n\nabout", "a")),
        ({"instruction": "q", "input": "", "output": "a"}, ("q", "a")),
        ({"instruction": "q", "context": "about", "response": "a", "category": "x"}, ("q\n\nabout", "a")),
        ({"question": "q", "answer": "a"}, ("q", "a")),
        ({"input": "q", "output": "a"}, ("q", "a")),
        (
            {
                "conversations": [
                    {"from": "human", "value": "q"},
                    {"from": "gpt", "value": "a"},
                    {"from": "human", "value": "r"},
                    {"from": "gpt", "value": "b"},
                ]
            },
            ("q", "a", "r", "b"),
        ),
        (
            {
                "prompt": [{"role": "user", "content": "q"}],
                "completion": [{"role": "assistant", "content": "a"}],
            },
            ("q", "a"),
        ),
        ({"prompt": "ignored", "messages": [{"role": "assistant", "content": "a"}]}, None),
    ],
)
def test_instructions_of_public_sets_need_no_names(
    tmp_path: Path, record: dict[str, Any], turns: tuple[str, ...] | None
) -> None:
    want = chat(*turns) if turns else Document((Span("a", True, "assistant"),))
    assert read(jsonl(tmp_path / "a.jsonl", record), "instructions") == [want]


def test_columns_of_ones_own_are_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"frage": "q", "antwort": "a", "rolle": "s", "output": "not this"})
    named = read(path, "instructions", prompt="frage", response="antwort", system="rolle")
    assert named == [Document((Span("s", False, "system"), *chat("q", "a").spans))]


SAID = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": SAID},
        {"messages": [{"role": "system", "content": "s"}, *SAID]},
        {"prompt": SAID[:1], "response": SAID[1:]},
    ],
)
def test_what_the_system_says_is_read_beside_messages_too(tmp_path: Path, record: dict[str, Any]) -> None:
    (found,) = read(jsonl(tmp_path / "a.jsonl", {**record, "rule": "s"}), "instructions", system="rule")
    assert found == Document((Span("s", False, "system"), *chat("q", "a").spans))
    assert found.where == f"{tmp_path / 'a.jsonl'}:1"


def test_any_role_may_speak_in_messages_that_are_read_as_text(tmp_path: Path) -> None:
    more = [{"role": "tool", "content": "4"}, {"role": "assistant", "content": None, "tool_calls": []}]
    (found,) = read(jsonl(tmp_path / "a.jsonl", {"messages": [*SAID, *more]}), "text")
    assert found.text == "\n".join(
        f"<|im_start|>{role}\n{said}<|im_end|>"
        for role, said in (("user", "q"), ("assistant", "a"), ("tool", "4"), ("assistant", ""))
    )
    assert [span.text for span in found.spans if span.scored] == ["a<|im_end|>", "<|im_end|>"]


@pytest.mark.parametrize("kind", ["instructions", "text"])
def test_an_answer_of_weight_0_is_read_and_not_scored(tmp_path: Path, kind: RecordKind) -> None:
    weighed = [SAID[0], {**SAID[1], "weight": 0}, {**SAID[0], "weight": None}, {**SAID[1], "weight": 1}]
    (found,) = read(jsonl(tmp_path / "a.jsonl", {"messages": weighed}), kind)
    assert [span.scored for span in found.spans] == [False, False, False, True]


@pytest.mark.parametrize("kind", ["instructions", "text"])
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, "'tool_calls'"),
        ({"reasoning_content": "First, q."}, "'reasoning_content'"),
        ({"weight": 0.5}, "weight 0.5"),
    ],
)
def test_what_a_message_says_besides_its_content_is_refused(
    tmp_path: Path, kind: RecordKind, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said) as refused:
        read(jsonl(tmp_path / "a.jsonl", {"messages": [SAID[0], {**SAID[1], **more}]}), kind)
    assert refused.value.where == f"{tmp_path / 'a.jsonl'}:1"


TOOL = {"type": "function", "function": {"name": "f"}}


KWARGS = "chat_template_kwargs"


@pytest.mark.parametrize("kind", ["instructions", "text"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", [TOOL]),
        ("tools", json.dumps([TOOL])),
        (KWARGS, {"enable_thinking": False, "rule": "Be brief."}),
    ],
)
def test_tools_beside_messages_are_refused(tmp_path: Path, kind: RecordKind, name: str, value: Any) -> None:
    record = {"messages": SAID, name: value}
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "a.parquet")
    for file in (jsonl(tmp_path / "a.jsonl", record), tmp_path / "a.parquet"):
        with pytest.raises(InputError, match=f"'{name}' says something"):
            read(file, kind)


@pytest.mark.parametrize("kind", ["instructions", "text"])
def test_empty_tools_are_no_fault(tmp_path: Path, kind: RecordKind) -> None:
    record = {"messages": SAID, "tools": [], KWARGS: {"enable_thinking": False, "rule": ""}}
    assert [span.text for span in read(jsonl(tmp_path / "a.jsonl", record), kind)[0].spans] == ["q", "a"]


def test_a_column_holds_one_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'a' is to hold the target, and another text too"):
        read(jsonl(tmp_path / "a.jsonl", {"a": "x", "b": "y"}), "pairs", source="a", target="a")


@pytest.mark.parametrize(
    ("kind", "record", "said", "advice"),
    [
        (
            "pairs",
            {"source": "a"},
            "no column holds the target: none is called 'target'",
            "data.fields.target",
        ),
        (
            "pairs",
            {"source": "a", "target": " "},
            "the target ('target') is blank",
            "Give the record a target",
        ),
        ("pairs", {"source": ["a"], "target": "b"}, "'source' is list, not text", "data.fields.source"),
        ("instructions", {"prompt": "q"}, "no column holds the response", "data.fields.response"),
        (
            "instructions",
            {"a": 1},
            "no column holds the prompt: none is called 'prompt'",
            "data.fields.prompt",
        ),
        (
            "instructions",
            {"prompt": "q", "response": ""},
            "the response ('response') is blank",
            "take it out",
        ),
        (
            "instructions",
            {"messages": [{"role": "critic", "content": "a"}]},
            "message 1 has the role 'critic', which is unknown",
            "system, user, assistant, human, gpt",
        ),
        (
            "instructions",
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}]},
            "message 2, the assistant's, is blank",
            "Give it an answer",
        ),
        (
            "instructions",
            {"messages": [{"role": "user", "content": "a"}]},
            "no turn of the role",
            "an answer",
        ),
        (
            "instructions",
            {"messages": [{"role": "assistant", "content": "a"}, {"role": "system", "content": "s"}]},
            "message 2 has the role 'system'",
            "before all turns",
        ),
        (
            "instructions",
            {"system": "t", "messages": [{"role": "system", "content": "s"}, *SAID]},
            "the messages begin with the role 'system', and 'system' says something else",
            "Take one of them out",
        ),
    ],
)
def test_a_record_that_lacks_a_side_is_refused_by_its_line(
    tmp_path: Path, kind: RecordKind, record: dict[str, Any], said: str, advice: str
) -> None:
    good = {"source": "a", "target": "b"} if kind == "pairs" else {"prompt": "q", "response": "a"}
    path = jsonl(tmp_path / "a.jsonl", good, record)
    with pytest.raises(InputError) as caught:
        read(path, kind)
    assert caught.value.where == f"{path}:2"
    assert said in caught.value.message
    assert advice in (caught.value.remedy or "")


def test_fields_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"prompt": "q", "response": "a"})
    with pytest.raises(InputError, match="no column 'frage'; the columns are 'prompt', 'response'"):
        read(path, "instructions", prompt="frage")
    with pytest.raises(InputError, match="only pairs have a source") as caught:
        read(path, "instructions", source="prompt")
    assert str(caught.value.where) == "data.fields.source"


def test_what_is_held_out_of_named_texts_is_whole_records(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", *({"source": f"s {n}", "target": f"t {n}"} for n in range(20)))
    split = load_text(DataConfig(train=(path,), eval_fraction=0.2), seed=0, kind="pairs")
    assert (len(split.train), len(split.held_out)) == (16, 4)
    (tmp_path / "b.txt").write_text("plain")
    for train, said in (
        ((tmp_path / "b.txt",), "a file of plain text holds no pairs"),
        (
            (jsonl(tmp_path / "one.jsonl", {"source": "a", "target": "b"}),),
            "one document, which cannot be cut",
        ),
    ):
        with pytest.raises(InputError, match=said):
            load_text(DataConfig(train=train), seed=0, kind="pairs")
