"""A teacher's cache: what it holds, whose it is, and that it survives interruptions and damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from roots_compress.configs.training import DistillLossConfig
from roots_compress.data.windows import PackedWindows
from roots_compress.errors import InputError, StageError
from roots_compress.events import Events
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.training.batches import BatchOrder
from roots_compress.training.context import TrainingContext
from roots_compress.training.distillation import teacher_cache
from roots_compress.training.distillation.asking import BATCH_SIZE
from roots_compress.training.distillation.teacher import cached_teacher
from roots_compress.training.distillation.teacher_cache import TeacherCache
from tests.heard import Heard
from tests.specs import BY_SIGMOIDS, with_experts
from tests.tiny import VOCAB_SIZE, tiny_model
from tests.training.text import windows

TOP_K = 8


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three windows a part, four parts."""
    monkeypatch.setattr(teacher_cache, "PART_POSITIONS", 50)


def ask(
    folder: Path,
    model: RootsForCausalLM | None = None,
    packed: PackedWindows | None = None,
    events: Events | None = None,
    **overrides: Any,
) -> TeacherCache:
    loss = DistillLossConfig(**{"top_k": TOP_K, "temperature": 1.5, **overrides})
    return cached_teacher(
        model or tiny_model(),
        packed or windows(),
        loss,
        folder,
        TrainingContext("cpu", 0, folder, events or Events()),
        tokenizer_sha256="t" * 64,
        precision="no",
    )


def forward_passes(model: RootsForCausalLM) -> list[int]:
    """Return a list that grows by the number of windows whenever the model runs."""
    seen: list[int] = []
    model.model.register_forward_pre_hook(
        lambda _module, _arguments, keywords: seen.append(len(keywords["input_ids"])), with_kwargs=True
    )
    return seen


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_it_holds_the_teachers_most_probable_tokens(tmp_path: Path) -> None:
    model, order = tiny_model(), BatchOrder(windows(), seed=0)
    cache = ask(tmp_path, model)
    rows = [7, 0, 11]
    batch, read = order.at(rows, "cpu"), cache.read(rows)
    logits = model(batch.input_ids_BT, segment_ids=batch.segment_ids_BT).logits[batch.scored_BT]
    expected = (logits / 1.5).softmax(dim=-1).topk(TOP_K)
    assert torch.equal(read.tokens_Nk, expected.indices)
    torch.testing.assert_close(
        read.log_probs_NK[:, :-1], expected.values.log().detach(), atol=5e-3, rtol=2e-3
    )
    torch.testing.assert_close(read.log_probs_NK.exp().sum(dim=1), torch.ones(len(read.tokens_Nk)))
    assert len(read.tokens_Nk) == len(batch.targets_N)


def test_its_size_is_what_was_announced(tmp_path: Path) -> None:
    events = Heard()
    cache = ask(tmp_path, events=events)
    scored = int(BatchOrder(windows(), seed=0).scored_counts.sum())
    assert cache.position_bytes == TOP_K * 2 + (TOP_K + 1) * 2
    assert "4 of 4 parts, 34 bytes a token" in events.text
    stored = sum(path.stat().st_size for path in cache.folder.glob("part-*"))
    assert scored * 34 < stored < scored * 34 + 4 * 200
    assert cache.missing_bytes() == 0


def test_large_vocabularies_have_wider_token_ids(tmp_path: Path) -> None:
    counts = BatchOrder(windows(), seed=0).scored_counts
    wide = TeacherCache(tmp_path, {}, counts, top_k=4, vocab_size=70_000)
    assert wide.position_bytes == 4 * 4 + 5 * 2


def test_it_is_made_once(tmp_path: Path) -> None:
    before = contents(ask(tmp_path).folder)
    model = tiny_model()
    seen = forward_passes(model)
    cache = ask(tmp_path, model)
    assert seen == []
    assert contents(cache.folder) == before


def test_an_interrupted_making_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    straight = ask(tmp_path / "straight")
    model = tiny_model()
    seen = forward_passes(model)

    def stop(*_: object) -> None:
        if len(seen) == 3:
            raise KeyboardInterrupt

    model.model.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path / "broken", model)
    entry = tmp_path / "broken" / straight.folder.name
    assert sorted(path.name for path in entry.glob("part-*")) == [part.name for part in straight.parts[:2]]
    model = tiny_model()
    seen = forward_passes(model)
    resumed = ask(tmp_path / "broken", model)
    assert sum(seen) == 6
    assert contents(resumed.folder) == contents(straight.folder)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_part_is_made_again(tmp_path: Path, damage: str) -> None:
    cache = ask(tmp_path)
    before, path = contents(cache.folder), cache.folder / cache.parts[1].name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "flip":
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:-10])
    else:
        path.unlink()
    model = tiny_model()
    seen = forward_passes(model)
    ask(tmp_path, model)
    assert sum(seen) == 3
    assert contents(cache.folder) == before


OTHERS: dict[str, dict[str, Any]] = {
    "teacher": {"model": tiny_model(1)},
    "text": {"packed": windows(seed=1)},
    "top_k": {"top_k": 9},
    "temperature": {"temperature": 1.0},
}


@pytest.mark.parametrize("changed", OTHERS)
def test_another_teacher_text_or_setting_has_a_place_of_its_own(tmp_path: Path, changed: str) -> None:
    first = ask(tmp_path)
    before = contents(first.folder)
    other = ask(tmp_path, **OTHERS[changed])
    assert other.folder != first.folder
    assert contents(first.folder) == before


def test_buffers_make_another_teacher_too(tmp_path: Path) -> None:
    model = tiny_model(spec=with_experts(**BY_SIGMOIDS))
    first = ask(tmp_path, model).folder
    model.get_buffer("model.layers.0.mlp.selection_bias")[0] += 1
    assert ask(tmp_path, model).folder != first


@pytest.mark.parametrize("changed", OTHERS)
def test_the_cache_of_another_is_refused_where_it_is_named_itself(tmp_path: Path, changed: str) -> None:
    first = ask(tmp_path)
    before = contents(first.folder)
    assert ask(first.folder).folder == first.folder
    with pytest.raises(InputError, match=f"another teacher, text or setting: {changed}: ") as caught:
        ask(first.folder, **OTHERS[changed])
    assert caught.value.where == str(first.folder)
    assert contents(first.folder) == before


def test_a_cache_under_the_name_of_another_is_refused(tmp_path: Path) -> None:
    first, other = ask(tmp_path), ask(tmp_path, tiny_model(1))
    shutil.rmtree(other.folder)
    first.folder.rename(other.folder)
    with pytest.raises(InputError, match="another teacher"):
        ask(tmp_path, tiny_model(1))


def unreadable(entry: Path) -> None:
    (entry / "cache.json").write_text('{"identity": {')


def not_a_cache(entry: Path) -> None:
    (entry / "cache.json").write_text(json.dumps([1, 2]))


@pytest.mark.parametrize("spoil", [unreadable, not_a_cache])
def test_facts_that_cannot_be_read_are_refused(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(ask(tmp_path).folder)
    with pytest.raises(InputError, match="no teacher cache that can be read"):
        ask(tmp_path)


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        ask(tmp_path / "file")


def test_two_writers_are_one_too_many(tmp_path: Path) -> None:
    entry = ask(tmp_path).folder
    next(entry.glob("part-*")).unlink()
    with FileLock(entry / ".lock"), pytest.raises(InputError, match="another process is making"):
        ask(tmp_path)


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=3000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="0 MB are free") as caught:
        ask(tmp_path / "caches")
    assert "top_k" in (caught.value.remedy or "")
    assert list(tmp_path.iterdir()) == []


def test_more_tokens_than_there_are_cannot_be_kept(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"vocabulary has {VOCAB_SIZE} tokens"):
        ask(tmp_path, top_k=VOCAB_SIZE + 1)
    assert ask(tmp_path, top_k=VOCAB_SIZE).missing() == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_not_cached(tmp_path: Path, value: float) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.get_parameter("model.norm.weight")[0] = value
    with pytest.raises(StageError, match="NaN or infinite in training windows 0 to 2"):
        ask(tmp_path, model)
    assert list(tmp_path.rglob("part-*")) == []


def test_the_teacher_reads_few_windows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_cache, "PART_POSITIONS", 1 << 15)
    model = tiny_model()
    seen = forward_passes(model)
    ask(tmp_path, model)
    assert max(seen) == BATCH_SIZE
