"""Tuning to answer, end to end by verbs: answers alone are learnt and judged, with a teacher or without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from roots_compress.configs.data import TokenizerConfig
from roots_compress.data.conversations import pack_conversations, responses
from roots_compress.data.documents import Document, Span
from roots_compress.data.tokenizers import train_tokenizer
from roots_compress.data.windows import IGNORED_LABEL
from roots_compress.errors import InputError
from roots_compress.runtime.torch_engine import TorchEngine
from roots_compress.tasks.answering import Answering
from tests.tasks.commands import metrics_of, roots
from tests.tiny import tiny_layer, tiny_model

THINGS = ("fox", "owl", "bee", "cat", "elk", "ant")
PAIRS = [
    (f"What says the {thing} number {n}?", f"It says {thing} {n % 4}.") for thing in THINGS for n in range(20)
]
SETTINGS = ("--block-size", "48", "--windows", "8", "--threads", "1", "--train-block-size", "64")


def conversation(*turns: str) -> Document:
    roles = ("user", "assistant") * len(turns)
    return Document(
        tuple(Span(text, role == "assistant", role) for text, role in zip(turns, roles, strict=False))
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    documents = [Document.plain("\n".join(pair)) for pair in PAIRS]
    tokenizer = train_tokenizer(
        documents, TokenizerConfig(vocab_size=320, special_tokens=("<|im_start|>", "<|im_end|>"))
    )
    save_checkpoint(
        Checkpoint(
            tiny_model(layers=[tiny_layer()] * 2, vocab_size=len(tokenizer), max_position_embeddings=96),
            tokenizer,
        ),
        folder,
    )
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    path.write_text("".join(json.dumps({"frage": q, "antwort": a}) + "\n" for q, a in PAIRS))
    return path


def options(data: Path) -> list[str | Path]:
    return ["--data", data, "--field", "prompt=frage", "--field", "response=antwort", *SETTINGS]


LEARN = ("--steps", "60", "--batch-size", "4", "--lr", "0.01")


@pytest.fixture(scope="module")
def tuned(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that tunes the model, then keeps it in 8 bits, calibrated on the conversations."""
    run = tmp_path_factory.mktemp("tuned") / "run"
    shown = roots("tune", model, *options(data), *LEARN, "--run", run)
    assert "response perplexity" in shown
    roots("quantize", "--weights-only", "--run", run)
    return run


def test_tuning_lowers_the_response_perplexity_and_shows_answers(
    tuned: Path, data: Path, model: Path
) -> None:
    rows = metrics_of(tuned)["stages"]
    before, after, quantized = (row["response_perplexity"] for row in rows)
    assert after < 0.2 * before
    assert quantized < 1.1 * after
    answers = rows[1]["notes"]["answers"]
    assert [*answers[0]] == ["after", "before", "expected", "prompt"]
    assert any(each["after"].startswith("It says ") for each in answers)
    page = (tuned / "report.html").read_text()
    assert answers[0]["prompt"] in page
    assert "Held-out prompts and their answers: 01-tune" in page
    # The format that it was tuned in is kept for whoever prompts it.
    tokenizer = load_checkpoint(tuned / "01-tune" / "checkpoint").tokenizer
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    said = roots("generate", tuned / "01-tune", "--chat", "--prompt", PAIRS[5][0], "--max-new-tokens", "12")
    assert said.startswith("It says fox ")
    said = roots("eval", model, "--eval-data", data, *options(data)[2:-2], "--records", "instructions")
    assert "response perplexity" in said
    assert "perplexity" in roots(
        "eval", tuned / "01-tune", "--eval-data", data, "--text-column", "frage", *SETTINGS[:-2]
    )


def test_a_teacher_tuned_on_the_same_data_corrects_what_the_student_answers(
    tuned: Path, model: Path, data: Path, tmp_path: Path
) -> None:
    teacher = tuned / "01-tune" / "checkpoint"
    on_policy = ("--divergence", "reverse_kl", "--on-policy-ratio", "0.5", "--answers", "1")
    steps = ("--steps", "30", *LEARN[2:], "--run", str(tmp_path / "run"))
    roots("tune", model, *options(data), "--teacher", teacher, *on_policy, *steps)
    before, after = metrics_of(tmp_path / "run")["stages"]
    assert after["response_perplexity"] < 0.5 * before["response_perplexity"]
    assert set(after["notes"]["losses"]) == {"cross_entropy", "divergence"}
    assert after["notes"]["answers"][0]["teacher"].startswith("It says ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--divergence", "reverse_kl"), "would have no effect without a --teacher"),
        (("--teacher", "nowhere"), "nowhere' does not exist"),
        (("--records", "pairs"), "asks for records of pairs, and 'tune' (tune) learns from instructions"),
    ],
)
def test_what_cannot_be_tuned_is_refused(
    model: Path, data: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in roots("tune", model, *options(data), *arguments, "--run", tmp_path / "run", code=2)
    assert not (tmp_path / "run").exists()


def test_each_conversation_is_whole_in_a_window_and_answers_alone_are_scored(model: Path) -> None:
    tokenizer = load_checkpoint(model).tokenizer
    documents = [conversation(*pair) for pair in PAIRS]
    documents += [conversation("one?", "It says fox 1.", "two?", "It says owl 2.")]
    windows = pack_conversations(documents, tokenizer, 96, seed=0)
    assert (windows.conversations, windows.cut, windows.left_out) == (121, 0, 0)
    begins = np.diff(windows.segment_ids, axis=1, prepend=-1) != 0
    assert (windows.input_ids[begins] == tokenizer.bos_token_id).all()
    scored = windows.targets != IGNORED_LABEL
    told = [tokenizer.decode(targets[at]) for targets, at in zip(windows.targets, scored, strict=True)]
    answers = sum(text.count("It says") for text in told)
    assert answers == 122
    assert not any("What" in text or "user" in text for text in told)
    # The answer ends in the format's mark and in EOS, and both are learnt.
    assert sum(text.count(f"<|im_end|>{tokenizer.eos_token}") for text in told) == answers
    cut = pack_conversations([conversation("long " * 40, "never"), *documents], tokenizer, 48, seed=0)
    assert (cut.left_out, cut.cut >= 1) == (1, True)
    with pytest.raises(InputError, match="in any of the 1 conversations"):
        pack_conversations([conversation("long " * 40, "never")], tokenizer, 48, seed=0)


def test_response_perplexity_is_that_of_the_answers_tokens(model: Path) -> None:
    checkpoint = load_checkpoint(model)
    documents = [conversation(*pair) for pair in PAIRS[::17]]
    examples = responses(documents, checkpoint.tokenizer, longest=64, tokens=10_000)
    losses: list[float] = []
    for ids, scored in zip(examples.input_ids, examples.scored, strict=True):
        with torch.no_grad():
            logits = checkpoint.model(torch.tensor(ids[None])).logits[0].double()
        losses += [-float(logits[at - 1].log_softmax(-1)[ids[at]]) for at in np.flatnonzero(scored)]
    found = Answering().quality(TorchEngine(checkpoint.model), examples)  # type: ignore[arg-type]
    assert found["response_perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-5)
    assert examples.scored_tokens == len(losses)
    said = "".join(pair[1] for pair in PAIRS[::17])
    assert examples.text_bytes == len(said)


def test_the_bytes_of_answers_are_the_same_in_every_chat_format(model: Path) -> None:
    tokenizer = load_checkpoint(model).tokenizer
    documents = [conversation("one?", "It says fox ü."), conversation("two?", "n" * 90)]
    marks = "{% for m in messages %}{{ m.role + ':' + m.content + 'END' }}{% endfor %}"
    opening = "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    found = []
    for end in ("|", "<|the end of this turn|>"):
        tokenizer.chat_template = marks.replace("END", end) + opening
        found.append(responses(documents, tokenizer, longest=400, tokens=10_000))
        cut = responses(documents, tokenizer, longest=90, tokens=10_000)
        assert len("It says fox ü.".encode()) < cut.text_bytes < found[0].text_bytes
    assert [each.text_bytes for each in found] == [15 + 90] * 2
    assert found[0].text_sha256 == found[1].text_sha256
    # Perplexities a token are not comparable: the tokens are others.
    assert found[0].tokenizer_sha256 != found[1].tokenizer_sha256
