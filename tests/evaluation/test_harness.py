"""Tasks of the real lm-eval on local files, where it is installed: `pip install roots-compress[skills]`."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest

from roots_compress.errors import InputError
from roots_compress.evaluation.skills.subject import Asked, Subject
from roots_compress.runtime.torch_engine import TorchEngine
from roots_compress.tasks.registry import CAUSAL_LM
from tests.evaluation.test_skills import TEXTS, direct, graph
from tests.tasks.commands import roots
from tests.tiny import tiny_checkpoint

pytest.importorskip("lm_eval")

__all__ = ["graph"]

QUESTIONS = [
    {
        "context": f"{text[:60].rpartition(' ')[0]}",
        "choices": ["one model", "the text", "a word"],
        "answer": n % 3,
    }
    for n, text in enumerate(TEXTS)
]
TASKS = {
    "choose": """
output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "roll": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{context}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
""",
    "write": """
output_type: generate_until
doc_to_text: "{{context}}"
doc_to_target: "one"
generation_kwargs: {until: ["the"], max_gen_toks: 8}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
}


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS))
    paths = []
    for name, text in TASKS.items():
        paths.append(tmp_path / f"{name}.yaml")
        source = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
        paths[-1].write_text(f"task: local_{name}\n{source}{text}")
    return ",".join(map(str, paths))


def test_a_graph_answers_tasks_of_local_files(graph: Path, tasks: str) -> None:
    shown = roots("eval", graph, "--tasks", tasks)
    for figure in ("local_choose . acc", "local_roll . bits_per_byte", "local_write . exact_match", " 6 "):
        assert figure.replace(" . ", " │ ") in shown or figure in shown, shown


def test_questions_are_asked_in_the_chat_template(tasks: str) -> None:
    from roots_compress.evaluation.skills.harness import run_tasks

    asked: list[str] = []

    class Noting(Subject):
        def prompt(self, text: str) -> list[int]:
            asked.append(text)
            return super().prompt(text)

    checkpoint, (choose, _, write) = tiny_checkpoint(), map(Path, tasks.split(","))
    for path in (choose, write):
        path.write_text(f"{path.read_text()}num_fewshot: 1\nfewshot_split: test\ndescription: Choose.\n")
    names = [str(choose), str(write)]
    subject = Noting(CAUSAL_LM, TorchEngine(checkpoint.model), checkpoint.tokenizer, ())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no chat template"):
        run_tasks(subject, names, seed=0, chat=True)
    subject.tokenizer = copy.deepcopy(checkpoint.tokenizer)
    subject.tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    found = run_tasks(subject, names, seed=0, limit=2, chat=True)
    assert [(each.metric, each.items) for each in found] == [("acc", 2), ("exact_match", 2)]
    text = QUESTIONS[0]["context"]
    pattern = re.compile(
        rf"\[system\] Choose.\n\[user\] .+\n\[assistant\] .+\n\[user\] {text}\n\[assistant\]"
    )
    assert sum(bool(pattern.fullmatch(each)) for each in asked) == 1 + 3


def test_likelihoods_are_those_of_a_direct_computation() -> None:
    from lm_eval.api.instance import Instance

    from roots_compress.evaluation.skills.harness import HarnessModel

    checkpoint = tiny_checkpoint()
    subject = Subject(CAUSAL_LM, TorchEngine(checkpoint.model), checkpoint.tokenizer, ())  # type: ignore[arg-type]
    model = HarnessModel(subject)

    def requests(kind: str, *arguments: tuple[str, ...]) -> list[Instance]:
        return [Instance(kind, {}, each, number) for number, each in enumerate(arguments)]

    pairs = [("The quick brown", " fox jumps"), ("", "A model reads")]
    for (context, continuation), (found, greedy) in zip(
        pairs, model.loglikelihood(requests("loglikelihood", *pairs)), strict=True
    ):
        asked = subject.asked(context, continuation)
        assert subject.tokenizer.decode(asked.continuation) == continuation
        expected = direct(checkpoint.model, asked)
        assert found == pytest.approx(expected[0], rel=1e-5)
        assert greedy == expected[1]
    # Longer than the context of 128 tokens: windows that each predict what no other does.
    text = " ".join(TEXTS)
    ids = subject.tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) > 300
    (rolled,) = model.loglikelihood_rolling(requests("loglikelihood_rolling", (text,)))
    total, done = 0.0, 0
    while done < len(ids):
        end = min(done + 128, len(ids))
        begin = end - 129
        read = [0] if done == 0 else ids[begin:done]
        total += direct(checkpoint.model, Asked(read, ids[done:end]))[0]
        done = end
    assert rolled == pytest.approx(total, rel=1e-5)


def test_unknown_names_and_missing_data_are_the_user_s(graph: Path, tmp_path: Path) -> None:
    assert "no task is called 'helaswag'" in roots("eval", graph, "--tasks", "helaswag", code=2)
    gone = tmp_path / "gone.yaml"
    gone.write_text("task: gone\ndataset_path: nobody/nothing\ntest_split: test\n")
    assert "lm-eval cannot carry out" in roots("eval", graph, "--tasks", str(gone), code=2)
