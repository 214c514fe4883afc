"""The pieces of a text that streams are the text that all tokens give at once, whatever the decoder."""

from __future__ import annotations

import random
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from roots_compress.runtime import text_stream
from roots_compress.runtime.text_stream import LONGEST_WINDOW, TextStream
from tests.runtime.tokenizer_kinds import KINDS, TEXT, byte_fallback, byte_level, word_piece


def streamed(tokenizer: PreTrainedTokenizerFast, prompt: list[int], new: list[int]) -> list[str]:
    stream = TextStream(tokenizer, prompt)
    return [*(stream.push(token) for token in new), stream.end()]


def at_once(tokenizer: PreTrainedTokenizerFast, prompt: list[int], new: list[int]) -> str:
    """What transformers' own text-generation pipeline shows behind the prompt."""
    given = len(tokenizer.decode(prompt, skip_special_tokens=True))
    return str(tokenizer.decode([*prompt, *new], skip_special_tokens=True))[given:]


@pytest.mark.parametrize("longest", [1, 5, LONGEST_WINDOW])
@pytest.mark.parametrize("cleaned", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_random_tokens_stream_as_they_are_decoded_at_once(
    kind: str, cleaned: bool, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_stream, "LONGEST_WINDOW", longest)
    tokenizer = KINDS[kind](clean_up_tokenization_spaces=cleaned)
    draw = random.Random(kind)
    ids = [*tokenizer.get_vocab().values(), len(tokenizer) + 5]
    # The longest window holds all of these, and never moves.
    for _ in range(100 if longest == LONGEST_WINDOW else 400):
        # Few ids in a row meet the same neighbours often; some draws are of bytes alone.
        some = draw.sample(ids, k=draw.randint(1, min(12, len(ids))))
        prompt = draw.choices(some, k=draw.randint(0, 4))
        new = draw.choices(some, k=draw.randint(0, 16))
        assert "".join(streamed(tokenizer, prompt, new)) == at_once(tokenizer, prompt, new), (prompt, new)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rewriting"])
def test_the_tokens_that_are_decoded_again_do_not_grow_with_the_text(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = KINDS[kind]()
    decoded: list[int] = []
    plain = PreTrainedTokenizerFast.decode

    def counted(self: PreTrainedTokenizerFast, ids: list[int], **options: Any) -> str:
        decoded.append(len(ids))
        return str(plain(self, ids, **options))

    ids = tokenizer.encode(TEXT * 40, add_special_tokens=False)
    expected = at_once(tokenizer, ids[:100], ids[100:])
    monkeypatch.setattr(PreTrainedTokenizerFast, "decode", counted)
    stream = TextStream(tokenizer, ids[:100])
    pieces = [stream.push(token) for token in ids[100:]]
    assert max(decoded[2:]) <= 4 * LONGEST_WINDOW
    assert len(decoded) < 1.3 * len(ids)
    assert "".join([*pieces, stream.end()]) == expected


@pytest.mark.parametrize("cleaned", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_text_of_many_scripts_streams_from_any_prompt(kind: str, cleaned: bool) -> None:
    tokenizer = KINDS[kind](clean_up_tokenization_spaces=cleaned)
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    for cut in range(0, len(ids), 7):
        pieces = streamed(tokenizer, ids[:cut], ids[cut : cut + 60])
        assert "".join(pieces) == at_once(tokenizer, ids[:cut], ids[cut : cut + 60])


def test_a_space_stays_before_the_first_new_word() -> None:
    tokenizer = byte_fallback()
    (word,) = ids_of(tokenizer, "▁ab")
    prompt = tokenizer.encode("ab", add_special_tokens=False)
    assert streamed(tokenizer, prompt, [word, word]) == [" ab", " ab", ""]


def test_a_character_comes_once_its_last_byte_is_there() -> None:
    tokenizer = byte_level()
    ids = [token for char in "日".encode() for token in byte_ids(tokenizer, char)]
    assert streamed(tokenizer, [], ids) == ["", "", "日", ""]
    assert streamed(tokenizer, [], ids[:2]) == ["", "", "\N{REPLACEMENT CHARACTER}"]
    real = tokenizer.encode("\N{REPLACEMENT CHARACTER}!", add_special_tokens=False)
    assert "".join(streamed(tokenizer, [], real)) == "\N{REPLACEMENT CHARACTER}!"


def test_a_run_of_byte_tokens_comes_when_it_is_over() -> None:
    tokenizer = byte_fallback()
    ids = ids_of(tokenizer, "<0xE6>", "<0x97>", "<0xA5>", "a", "<0xE6>", "<|end|>", "<0x97>", "a")
    assert streamed(tokenizer, [ids[3]], ids) == ["", "", "", "日a", "", "", "", "\ufffd\ufffda", ""]


def test_text_that_a_cleanup_may_change_waits() -> None:
    tokenizer = word_piece()
    ids = ids_of(tokenizer, "fox", "do", "n", "'", "t", "fox", ".")
    assert "".join(streamed(tokenizer, ids[:1], ids[1:])) == at_once(tokenizer, ids[:1], ids[1:])


def test_most_text_comes_at_once() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("The quick brown fox jumps over the lazy dog.", add_special_tokens=False)
    assert all(streamed(tokenizer, [], ids)[:-1])


def ids_of(tokenizer: PreTrainedTokenizerFast, *tokens: str) -> list[int]:
    return [tokenizer.get_vocab()[token] for token in tokens]


def byte_ids(tokenizer: PreTrainedTokenizerFast, byte: int) -> list[int]:
    """Return the token of a byte in GPT-2's alphabet."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [other for other in range(256) if other not in shown]
    char = chr(byte) if byte in shown else chr(256 + hidden.index(byte))
    return [tokenizer.get_vocab()[char]]
