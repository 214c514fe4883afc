"""Tokens in pieces and batches: those of the whole text, in every kind of tokenizer."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from roots_compress.configs.data import TokenizerConfig
from roots_compress.data import encoding, pieces
from roots_compress.data.documents import Document, Span
from roots_compress.data.encoding import bytes_of_tokens, encode, first_characters, joined, marks_beginnings
from roots_compress.data.evaluation import evaluation_windows
from roots_compress.data.packing import pack
from roots_compress.data.tokenizers import train_tokenizer
from roots_compress.data.windows import IGNORED_LABEL
from roots_compress.errors import InputError
from roots_compress.runtime.text import prompt_ids
from tests.data.conftest import SENTENCES
from tests.faults.commands import Commands

WORDS = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ODD = "a  b\u00a0c\u3000d e\u0301 12345 \U0001f469\u200d\U0001f467. ...\n\n\n  \t x\n y\nz. \n"
CORPUS = ("".join(SENTENCES) * 8 + ODD) * 3
TEXTS = [
    CORPUS,
    "line of text\n" * 200,
    "line.\n\n" * 200,
    "word " * 500,
    "a" * 900,
    " " * 900,
    "\n" * 900,
    ODD,
    "x",
    "",
]
KINDS = ("byte level", "trimmed", "prefix space", "words", "llama", "no space", "unigram", "pieces", "across")


def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of one of the `KINDS` that checkpoints come with."""
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(trained(kind)), unk_token="<unk>")


@cache
def trained(kind: str) -> str:
    """Return the JSON of a tokenizer of one of the `KINDS`."""
    byte_level = pre_tokenizers.ByteLevel
    options: dict[str, Any] = {"show_progress": False, "special_tokens": ["<unk>"]}
    trainer: trainers.Trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=byte_level.alphabet(), **options
    )
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    match kind:
        case "byte level" | "trimmed":
            tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
        case "prefix space":
            tokenizer.pre_tokenizer = byte_level(add_prefix_space=True)
        case "words":
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Split(Regex(WORDS), "isolated"), byte_level(False, use_regex=False)]
            )
        case "llama" | "no space":
            steps = [normalizers.Prepend("▁")] if kind == "llama" else []
            tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
            tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"▁?[^▁\n]+|▁+|\n+"), "isolated")
            trainer = trainers.BpeTrainer(vocab_size=300, **options)
        case "unigram":
            tokenizer = Tokenizer(models.Unigram())
            tokenizer.normalizer = normalizers.NFKC()
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
            trainer = trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>", **options)
        case "pieces":
            tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
            tokenizer.normalizer = normalizers.BertNormalizer()
            tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
            trainer = trainers.WordPieceTrainer(vocab_size=200, **options)
        case _:  # Merges run across spaces and line ends.
            trainer = trainers.BpeTrainer(vocab_size=300, **options)
    tokenizer.train_from_iterator([CORPUS], trainer)
    if kind in ("llama", "no space"):
        tokenizer.pre_tokenizer = None
    if kind == "trimmed":
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    serialized: str = tokenizer.to_str()
    return serialized


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut texts every 200 characters, as texts of a megabyte are cut."""
    monkeypatch.setattr(pieces, "PIECE_CHARACTERS", 200)
    monkeypatch.setattr(encoding, "BATCH_CHARACTERS", 900)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("kind", KINDS)
def test_pieces_have_the_tokens_of_the_whole_text(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    found = list(encode(TEXTS, tokenizer))
    for index, text in enumerate(TEXTS):
        own = [piece for piece in found if piece.number == index]
        whole = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        tokens = joined(own)
        assert tokens.ids.tolist() == whole.ids
        assert list(zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True)) == whole.offsets
        assert [own[0].start, *(piece.end for piece in own)] == [*(piece.start for piece in own), len(text)]
    assert kind == "across" or len(found) > 2 * len(TEXTS)


@pytest.mark.usefixtures("small_pieces")
def test_words_of_a_fixed_length_are_counted_from_the_beginning_of_the_text() -> None:
    letters = {letter: number for number, letter in enumerate("acgt ")}
    backend = Tokenizer(models.BPE({**letters, "ac": 5}, [("a", "c")]))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.FixedLength(2)])
    text = ("gt " * 40 + "ac ") * 30  # Around most cuts no merge shows where words begin.
    whole = backend.encode(text, add_special_tokens=False)
    found = joined(encode([text], PreTrainedTokenizerFast(tokenizer_object=backend)))
    assert found.ids.tolist() == whole.ids


LACKING: dict[str, Any] = {
    "words": lambda: models.WordLevel({"a": 0}, unk_token="?"),
    "pieces": lambda: models.WordPiece({"a": 0}, unk_token="?"),
    "unigram": lambda: models.Unigram([("a", -1.0)]),
}


@pytest.mark.parametrize("kind", LACKING)
def test_a_tokenizer_that_lacks_a_token_for_what_it_does_not_know_is_refused(kind: str) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(LACKING[kind]()))
    with pytest.raises(InputError, match=r"the tokenizer cannot read a text: .*(?i:unk)"):
        list(encode(["a b"], tokenizer))
    with pytest.raises(InputError, match="the tokenizer cannot read a text"):
        prompt_ids("a b", tokenizer, continues=True)


def test_a_panic_of_the_library_is_refused() -> None:
    """As of tokenizers 0.23, of an added token that the normalizer leaves nothing of."""
    backend = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    backend.normalizer = normalizers.Strip(left=True, right=False)
    backend.add_tokens([AddedToken("\n", normalized=True)])
    with pytest.raises(InputError, match="the tokenizer cannot read a text: "):
        list(encode(["Où"], PreTrainedTokenizerFast(tokenizer_object=backend)))


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_of_tokens_are_those_of_the_text(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    for text in TEXTS:
        counted = carried = 0
        for piece in encode([text], tokenizer):
            counts, carried = bytes_of_tokens(text, piece, carried)
            assert (counts >= 0).all()
            counted += int(counts.sum())
        assert counted + carried == len(text.encode())


@pytest.mark.parametrize("kind", KINDS)
def test_windows_do_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    documents = [Document.plain(CORPUS), *(Document.plain(f"{n} {text}") for n, text in enumerate(TEXTS))]

    def windows() -> Iterator[object]:
        packed = pack(documents, tokenizer, 32, seed=3)
        yield from (packed.input_ids.tolist(), packed.targets.tolist(), packed.segment_ids.tolist())
        held_out = evaluation_windows(documents, tokenizer, block_size=16, limit=50)
        yield from (held_out.input_ids.tolist(), held_out.text_bytes)

    whole = list(windows())
    monkeypatch.setattr(pieces, "PIECE_CHARACTERS", 150)
    monkeypatch.setattr(encoding, "BATCH_CHARACTERS", 400)
    assert list(windows()) == whole


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "texts",
    [
        ("Q: The quick\nA:\n", "brown fox"),
        ("The quick", " brown fox"),
        ("The quick ", "brown fox"),
        ("<|im_start|>user\n", "The fox<|im_end|>", "\n<|im_start|>assistant\n", " lazy", "\n\ndog."),
        ("", "The fox", "", " 12", "345"),
        ("漢", "字 🙂", "🙂"),
    ],
)
def test_a_document_of_spans_is_encoded_as_one_text(kind: str, texts: tuple[str, ...]) -> None:
    tokenizer = tokenizer_of(kind)
    document = Document(tuple(Span(text, index % 2 == 1) for index, text in enumerate(texts)))
    ids = tokenizer(document.text, add_special_tokens=False)["input_ids"]
    windows = pack([document], tokenizer, len(ids), seed=0)
    assert windows.input_ids.tolist() == [ids]
    # A token is scored as the character that it begins with, which offsets that are not trimmed tell.
    plain = tokenizer_of("byte level") if kind == "trimmed" else tokenizer
    offsets = plain.backend_tokenizer.encode(document.text, add_special_tokens=False).offsets
    spans = [index for index, text in enumerate(texts) for _ in text]
    flags = [spans[min(start, len(spans) - 1)] % 2 == 1 for start, _ in offsets]
    assert (windows.targets[0, :-1] != IGNORED_LABEL).tolist() == flags[1:]


def test_trimmed_offsets_are_widened_by_the_spaces_of_their_token() -> None:
    text = "The  quick brown\n fox  "
    trimmed, plain = (
        (joined(encode([text], tokenizer)), tokenizer)
        for tokenizer in (tokenizer_of("trimmed"), tokenizer_of("byte level"))
    )
    assert trimmed[0].starts.tolist() != plain[0].starts.tolist()
    assert first_characters(*trimmed).tolist() == plain[0].starts.tolist()
    assert first_characters(*plain).tolist() == plain[0].starts.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_two_documents_gain_nothing_between_them(kind: str) -> None:
    """Joined, they are the text that a tokenizer with a space before each text reads with one space."""
    tokenizer = tokenizer_of(kind)
    texts = ["The quick fox", "brown dog.", "12 foxes"]
    windows = evaluation_windows([Document.plain(text) for text in texts], tokenizer, block_size=2, limit=999)
    stream = [int(windows.input_ids[0, 0]), *windows.input_ids[:, 1].tolist()]
    if marks_beginnings(tokenizer):
        assert stream == tokenizer("\n\n".join(texts), add_special_tokens=False)["input_ids"]
    else:
        apart = [text + "\n\n" for text in texts[:-1]] + texts[-1:]
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in apart]
        assert stream == [token for text_ids in ids for token in text_ids]
    assert windows.text_bytes <= len("\n\n".join(texts).encode())


def test_which_tokenizers_mark_a_beginning() -> None:
    assert [kind for kind in KINDS if marks_beginnings(tokenizer_of(kind))] == [
        "prefix space",
        "llama",
        "unigram",
    ]


def test_a_tokenizer_trained_on_pieces_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [Document.plain(text) for text in TEXTS[:4]]
    config = TokenizerConfig(vocab_size=400)
    whole = train_tokenizer(documents, config).backend_tokenizer.to_str()
    monkeypatch.setattr(pieces, "PIECE_CHARACTERS", 100)
    assert train_tokenizer(documents, config).backend_tokenizer.to_str() == whole


def test_memory_is_bounded_by_the_batch(commands: Commands) -> None:
    """2 MB of prose as one document: three times its size and the tokens, where it was 200 times."""
    program = (
        "import resource\n"
        "from roots_compress.configs.data import TokenizerConfig\n"
        "from roots_compress.data.documents import Document\n"
        "from roots_compress.data.evaluation import evaluation_windows\n"
        "from roots_compress.data.packing import pack\n"
        "from roots_compress.data.tokenizers import train_tokenizer\n"
        "text = ''.join(f'The quick brown fox number {n} jumps over it.\\n' for n in range(46_000))\n"
        "tokenizer = train_tokenizer([Document.plain(text[:99_999])], TokenizerConfig(vocab_size=600))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "documents = [Document.plain(text)]\n"
        "evaluation_windows(documents, tokenizer, block_size=128, limit=4)\n"
        "pack(documents, tokenizer, 128, seed=0, limit=4)\n"
        "print(len(text), 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))\n"
    )
    size, taken = map(int, commands.python(program).split())
    assert taken < 250e6 + 6 * size


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent")
@pytest.mark.parametrize("handled", [True, False])
def test_a_signal_ends_the_tokenizing_of_one_long_word(tmp_path: Path, handled: bool) -> None:
    """The first does at once; where it is not even noticed, a second one does."""
    wait = "interruptible(call)" if handled else "call()"
    program = (
        "import signal\n"
        "from roots_compress.configs.data import TokenizerConfig\n"
        "from roots_compress.data.documents import Document\n"
        "from roots_compress.data.tokenizers import train_tokenizer\n"
        "from roots_compress.system.background import end_at_second_signal, interruptible, left_behind\n"
        "import os\n"
        "end_at_second_signal([signal.SIGINT])\n"
        "tokenizer = train_tokenizer([Document.plain('aaa bbb')], TokenizerConfig(vocab_size=300))\n"
        "text = 'a' * 12_000_000\n"
        "call = lambda: tokenizer.backend_tokenizer.encode_batch([text])\n"
        "print('ready', flush=True)\n"
        "try:\n"
        f"    {wait}\n"
        "except KeyboardInterrupt:\n"
        "    assert left_behind()\n"
        "    os._exit(130)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.3)
    started = time.monotonic()
    child.send_signal(signal.SIGINT)
    if not handled:
        time.sleep(0.5)
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
    assert child.wait(timeout=60) == 130
    assert time.monotonic() - started < 3


def test_a_text_without_a_cut_is_refused_where_memory_is_short(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    monkeypatch.setattr(encoding, "available_memory", lambda: 10_000_000)
    assert sum(len(piece.tokens.ids) for piece in encode(["The quick fox " * 50_000], tokenizer)) > 100_000
    with pytest.raises(InputError, match=r"700,000 characters without a place to cut it, from 'aaa"):
        list(encode(["a" * 700_000], tokenizer))


def test_an_error_of_the_tokenizer_comes_through(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(TypeError):
        list(encode([3], tokenizer))  # type: ignore[list-item]
