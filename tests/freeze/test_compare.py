"""A rename is told apart from a number that changed."""

from __future__ import annotations

import copy
from typing import Any

from tests.freeze.compare import differences

OLD: dict[str, Any] = {
    "llama": {
        "int8": {
            "exit": 0,
            "figures": {"perplexity": 12.5, "bytes": 1000},
            "tensors": {"q_proj": "aa", "k_proj": "bb", "norm": "bb"},
            "logits": "cc",
            "graph": {
                "files": ["dd"],
                "weights": ["aa", "bb", "bb"],
                "operators": {"MatMul": 3},
                "logits": "ee",
            },
        }
    }
}


def changed(**changes: Any) -> tuple[list[str], list[str]]:
    new = copy.deepcopy(OLD)
    entry = new["llama"]["int8"]
    for key, value in changes.items():
        entry[key] = {**entry[key], **value} if key in ("figures", "graph") else value
    return differences(OLD, new)


def test_a_record_equals_itself() -> None:
    assert changed() == ([], [])


def test_tensors_of_other_names_are_renamed() -> None:
    numbers, names = changed(tensors={"attention.q": "aa", "k_proj": "bb", "final_norm": "bb"})
    assert numbers == []
    assert names == [
        "llama, int8: 2 of the checkpoint's tensors are renamed: q_proj -> attention.q, norm -> final_norm"
    ]


def test_a_graph_with_other_names_in_it_may_have_another_size() -> None:
    numbers, names = changed(graph={"files": ["ff"]}, figures={"bytes": 1010})
    assert numbers == []
    assert names == [
        "llama, int8: the graph's files differ, its weights do not: 1000 bytes before, 1010 after"
    ]


def test_other_contents_and_figures_are_numbers() -> None:
    for changes, words in (
        ({"tensors": {"q_proj": "a0", "k_proj": "bb", "norm": "bb"}}, "1 of the checkpoint's tensors differ"),
        ({"tensors": {"q_proj": "aa", "k_proj": "bb"}}, "1 of the checkpoint's tensors differ"),
        (
            {"graph": {"files": ["ff"], "weights": ["aa", "bb"]}, "figures": {"bytes": 900}},
            "bytes: 1000 before",
        ),
        ({"graph": {"operators": {"MatMul": 4}}}, "operators differ"),
        ({"figures": {"perplexity": 12.6}}, "perplexity: 12.5 before, 12.6 after"),
        ({"logits": "c0"}, "logits: cc before"),
        ({"exit": 2}, "exit: 0 before, 2 after"),
    ):
        numbers, names = changed(**changes)
        assert any(words in line for line in numbers), (changes, numbers)
        assert names == []
    assert differences(OLD, {})[0] == ["llama: recorded before only"]
