"""Duplicates: what is found is what comparing all pairs finds, however little fits in memory."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from roots_compress.data.prepare import duplicates
from roots_compress.data.prepare.duplicates import Marks, mark_alike
from roots_compress.data.prepare.minhash import MinHash, best_bands
from roots_compress.data.prepare.words import WordHashes, plain_words, runs


@pytest.mark.parametrize("most_keys", [1 << 18, 16])
def test_documents_are_marked_as_by_comparing_all_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_keys: int
) -> None:
    monkeypatch.setattr(duplicates, "MOST_KEYS", most_keys)
    rng = np.random.default_rng(0)
    # A hundred documents share one key, which no parting parts; in a signature the last value may differ.
    keys = np.concatenate([rng.integers(0, 60, 300, np.uint64), np.full(100, 7, np.uint64)])[
        rng.permutation(400)
    ]
    signatures = np.stack([keys.astype(np.uint32)] * 4, axis=1)
    signatures[:, 3] = rng.integers(0, 2, 400)
    signatures[:, 2] = rng.integers(0, 2, 400)
    (tmp_path / "keys").write_bytes(keys.tobytes())
    (tmp_path / "signatures").write_bytes(signatures.tobytes())
    with Marks(tmp_path / "marks", 400) as marks:
        mark_alike(
            tmp_path / "keys", tmp_path / "signatures", marks,
            width=4, threshold=1.0, exact=True, scratch=tmp_path / "scratch",
        )  # fmt: skip
        found = marks.read(0, 400)
    for number in range(400):
        same = np.flatnonzero((signatures[:number] == signatures[number]).all(axis=1))
        assert found[number] == (2 * same[0] + 1 if len(same) else 0)


def test_a_near_duplicate_leads_to_others_that_share_another_key_with_it(tmp_path: Path) -> None:
    signatures = np.array([[1, 1, 1, 1], [1, 1, 1, 2], [1, 1, 2, 2]], np.uint32)
    (tmp_path / "signatures").write_bytes(signatures.tobytes())
    with Marks(tmp_path / "marks", 3) as marks:
        for keys in ([7, 7, 8], [9, 5, 5]):
            (tmp_path / "keys").write_bytes(np.array(keys, np.uint64).tobytes())
            mark_alike(
                tmp_path / "keys", tmp_path / "signatures", marks,
                width=4, threshold=0.75, exact=False, scratch=tmp_path / "scratch",
            )  # fmt: skip
        found = marks.read(0, 3).tolist()
    assert found == [0, 2 * 0 + 2, 2 * 1 + 2]


def test_signatures_estimate_how_alike_texts_are() -> None:
    hashes, drawn = WordHashes(), random.Random(0)
    minhash = MinHash(128, 0.8)
    words = [f"w{number}" for number in range(400)]
    for changed in (0, 4, 20, 60):
        other = list(words)
        for place in drawn.sample(range(400), changed):
            other[place] = f"x{place}"
        one, two = (runs(hashes.of(each), 5) for each in (words, other))
        similarity = len(np.intersect1d(one, two)) / len(np.union1d(one, two))
        first, second = minhash.signature(one), minhash.signature(two)
        assert (first == second).mean() == pytest.approx(similarity, abs=0.12)
        if similarity > 0.9:
            assert set(minhash.keys(first)) & set(minhash.keys(second))


def test_bands_part_what_is_alike_from_what_is_not() -> None:
    for threshold in (0.5, 0.8, 0.95):
        bands, rows = best_bands(128, threshold)
        assert bands * rows <= 128
        assert 1 - (1 - min(threshold + 0.1, 0.99) ** rows) ** bands > 0.85
        assert 1 - (1 - (threshold - 0.3) ** rows) ** bands < 0.3


def test_words_keep_the_signs_that_follow_their_letters() -> None:
    ki, ke, heart = "\u0915\u0940", "\u0915\u0947", "\u2764\ufe0f"
    assert plain_words(f"{ki}\u0964 {ke}, {heart} Cafe\u0301!") == [ki, ke, "caf\u00e9"]
    assert plain_words("Don't \u201cstop\u201d (now)...") == ["dont", "stop", "now"]
