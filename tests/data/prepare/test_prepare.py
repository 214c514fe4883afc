"""`data prepare` from end to end: what is removed and why, what is written, and what a killed one ends in."""

from __future__ import annotations

import json
import os
import random
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pyarrow
import pyarrow.parquet
import pytest

from roots_compress.configs.data import DataConfig
from roots_compress.configs.prepare import PrepareConfig
from roots_compress.data.corpora import load_text
from roots_compress.data.kept_back import keep_back
from roots_compress.data.prepare import journal, writing
from roots_compress.data.prepare import prepare as prepare_module
from roots_compress.data.prepare.prepare import prepare
from roots_compress.data.sources import readers
from roots_compress.data.sources.files import text_lines
from roots_compress.data.streamed import StreamedDocuments
from roots_compress.errors import InputError, StageError
from roots_compress.events import Event, Events, Message
from roots_compress.io.atomic import remove_folder
from roots_compress.run.lock import WriterLock
from tests.cli.test_commands import assert_refused, roots_compress
from tests.data.prepare.texts import contents, jsonl, prose


def made(out: Path, **settings: Any) -> dict[str, Any]:
    return prepare(PrepareConfig.model_validate(settings), out, Events())[0]


def rows(out: Path) -> list[tuple[str, str]]:
    """Return text and source of each document, in the order of the shards."""
    found: list[tuple[str, str]] = []
    for shard in json.loads((out / "datasheet.json").read_text())["shards"]:
        table = pyarrow.parquet.read_table(out / shard["name"])
        found += zip(table["text"].to_pylist(), table["source"].to_pylist(), strict=True)
    return found


def removals(out: Path) -> list[dict[str, Any]]:
    with pyarrow.CompressedInputStream(pyarrow.OSFile(str(out / "removed.log.zst")), "zstd") as log:
        return [json.loads(line) for line in log.read().decode().splitlines()]


def test_a_corpus_of_two_sources_through_the_command_line(tmp_path: Path) -> None:
    texts = [prose(seed) for seed in range(20)]
    near = texts[3].replace(texts[3].split()[60], "other")
    jsonl(tmp_path / "good.jsonl", [*texts, texts[0] + " "])
    jsonl(
        tmp_path / "web.jsonl",
        [near, texts[5].replace(" ", "  "), "too short", prose(99), "cafe\u0301 " + prose(98)],
    )
    (tmp_path / "corpus.yaml").write_text(
        "sources:\n- {path: web.jsonl, name: web}\n- {path: good.jsonl, name: good, priority: 1}\n"
    )
    out = tmp_path / "out"
    result = roots_compress("data", "prepare", "--recipe", tmp_path / "corpus.yaml", "--out", out)
    assert result.exit_code == 0, result.output
    assert "22 documents" in result.output
    assert "2 by duplicates.exact" in result.output
    kept = rows(out)
    assert sorted(text for text, _ in kept) == sorted([*texts, prose(99), "caf\u00e9 " + prose(98)])
    assert [text for text, _ in kept[:20]] != texts, "the order is the sources'"
    assert {source for text, source in kept if text in texts} == {"good"}
    assert [(each["place"], each["reason"], each.get("of")) for each in removals(out)] == [
        ("web.jsonl:3", "length.min_words", None),
        ("good.jsonl:21", "duplicates.exact", "good.jsonl:1"),
        ("web.jsonl:1", "duplicates.near", "good.jsonl:4"),
        ("web.jsonl:2", "duplicates.exact", "good.jsonl:6"),
    ]
    # A run reads the shards, and nothing else that is in the folder.
    read = load_text(DataConfig(train=(out,)), seed=0)
    assert {document.text for document in (*read.train, *read.held_out)} == {text for text, _ in kept}
    assert isinstance(read.train, StreamedDocuments)
    assert (len(read.train), len(read.held_out)) == (21, 1)
    assert [read.train[number].text for number in (20, 0, -1)] == [kept[number][0] for number in (20, 0, 20)]
    assert [each.text for each in read.train.beginning_at(19)[:3]] == [kept[at][0] for at in (19, 20, 0)]
    parts = keep_back(read.train, 0.1, characters=1, seed=0)
    assert parts is not None
    assert isinstance(parts[0], StreamedDocuments)
    assert [each.text for each in parts[0][:]] == [text for text, _ in kept[:20]]
    assert [each.text for each in parts[1]] == [kept[20][0]]
    again = roots_compress("data", "prepare", "--recipe", tmp_path / "corpus.yaml", "--out", out)
    assert "as it was made" in again.output
    other = roots_compress("data", "prepare", tmp_path / "good.jsonl", "--out", out)
    assert_refused(other, "a corpus of other settings or sources is there already")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sheet: sheet.pop("text_bytes"), "text_bytes: Field required"),
        (lambda sheet: sheet["settings"].pop("duplicates"), r"settings.duplicates: Field required"),
        (lambda sheet: sheet["shards"][0].update(bytes="7"), r"shards\[0\].bytes"),
        (lambda sheet: sheet["shards"][0].update(documents=3), "holds 2 documents .* counts 3"),
    ],
    ids=["lacks a number", "lacks a setting", "text for a number", "miscounts"],
)
def test_a_datasheet_edited_by_hand_is_refused_by_its_key(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    out = tmp_path / "out"
    made(out, sources=[{"path": jsonl(tmp_path / "a.jsonl", map(prose, range(2)))}], format="jsonl")
    sheet = json.loads((out / "datasheet.json").read_text())
    change(sheet)
    (out / "datasheet.json").write_text(json.dumps(sheet))
    with pytest.raises(InputError, match=message):
        load_text(DataConfig(train=(out,)), seed=0)


def test_a_datasheet_that_was_cut_is_refused_and_not_taken_for_anothers(tmp_path: Path) -> None:
    out = tmp_path / "out"
    made(out, sources=[{"path": jsonl(tmp_path / "a.jsonl", map(prose, range(2)))}])
    sheet = out / "datasheet.json"
    sheet.write_text(sheet.read_text()[:300])
    with pytest.raises(InputError, match=r"the datasheet cannot be read: .*JSON"):
        load_text(DataConfig(train=(out,)), seed=0)


@pytest.mark.parametrize("change", ["missing", "changed"])
def test_a_shard_that_is_not_what_was_written_is_refused(tmp_path: Path, change: str) -> None:
    source = jsonl(tmp_path / "a.jsonl", map(prose, range(8)))
    made(tmp_path / "out", sources=[{"path": source}], shard_bytes=2048)
    shard = tmp_path / "out" / "part-00001.parquet"
    if change == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    for attempt in (
        lambda: load_text(DataConfig(train=(tmp_path / "out",)), seed=0),
        lambda: made(tmp_path / "out", sources=[{"path": source}], shard_bytes=2048),
    ):
        with pytest.raises(InputError, match="shard.*missing" if change == "missing" else "changed since"):
            attempt()


def test_the_readme_says_that_nothing_was_removed_in_place_of_an_empty_table(tmp_path: Path) -> None:
    removed = []
    for name, texts in (("with", [prose(1), prose(2), prose(1)]), ("without", [prose(1), prose(2)])):
        made(tmp_path / name, sources=[{"path": jsonl(tmp_path / f"{name}.jsonl", texts), "name": "a"}])
        removed.append((tmp_path / name / "README.md").read_text().split("## Removed")[1])
    assert "| reason | a | all |\n|---|---|---|\n| duplicates.exact | 1 | 1 |\n" in removed[0]
    assert removed[1].split("##")[0].strip() == "No document was removed."


def test_a_corpus_killed_at_any_commit_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = jsonl(tmp_path / "held.jsonl", [prose(2)])
    sources = [
        {"path": jsonl(tmp_path / "a.jsonl", [prose(seed % 25) for seed in range(30)]), "weight": 2.0},
        {"path": jsonl(tmp_path / "b.jsonl", [prose(seed) for seed in range(20, 50)]), "weight": 1.0},
    ]
    settings = {
        "sources": sources,
        "decontamination": {"held_out": [held_out]},
        "max_repeats": 3.0,
        "shard_bytes": 4096,
    }
    monkeypatch.setattr(journal, "MOST_BUFFERED", 9000)
    monkeypatch.setattr(writing, "BUCKET_BYTES", 5000)
    made(tmp_path / "whole", **settings)
    write, calls = journal.Journal._write, 0

    def dying(self: journal.Journal, position: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        if calls % 2:  # Before what was appended is noted, and after it.
            raise KeyboardInterrupt
        write(self, position)

    monkeypatch.setattr(journal.Journal, "_write", dying)
    deaths = 0
    while not (tmp_path / "out").exists():
        with suppress(KeyboardInterrupt):
            made(tmp_path / "out", **settings)
            break
        deaths += 1
        assert not (tmp_path / "out").exists()
    assert deaths > 15
    whole, resumed = contents(tmp_path / "whole"), contents(tmp_path / "out")
    assert whole.pop("README.md").decode().replace("# whole", "# out") == resumed.pop("README.md").decode()
    assert whole == resumed
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("state.json", lambda data: data.replace(b'"files"', b'"filed"'), "state.json changed since"),
        ("state.json", lambda data: b"[]", "state.json holds no hash"),
        ("state.json", lambda data: b"", "state.json Expecting value"),
        ("texts", lambda data: data[:-1], "texts is shorter than it was"),
        ("key.json", lambda data: b'{"code": 1e400}', "code: Infinity"),
        ("key.json", lambda data: b"{", "is not valid JSON"),
    ],
)
def test_work_that_was_changed_begins_anew(
    name: str, damage: Callable[[bytes], bytes], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"sources": [{"path": jsonl(tmp_path / "a.jsonl", map(prose, range(30)))}]}
    made(tmp_path / "whole", **settings)
    write = journal.Journal._write

    def dying(self: journal.Journal, position: dict[str, Any]) -> None:
        write(self, position)
        raise KeyboardInterrupt

    with monkeypatch.context() as during, suppress(KeyboardInterrupt):
        during.setattr(journal.Journal, "_write", dying)
        made(tmp_path / "out", **settings)
    file = tmp_path / ".out.partial" / name
    file.write_bytes(damage(file.read_bytes()))
    told: list[Event] = []
    prepare(PrepareConfig.model_validate(settings), tmp_path / "out", Events(told.append))
    said = " ".join(event.text for event in told if isinstance(event, Message))
    assert "begins anew: " in said
    assert words in said
    assert contents(tmp_path / "whole").keys() == contents(tmp_path / "out").keys()
    assert rows(tmp_path / "whole") == rows(tmp_path / "out")


def test_sources_are_mixed_by_their_weights(tmp_path: Path) -> None:
    a = jsonl(tmp_path / "a.jsonl", [prose(seed) for seed in range(100)])
    b = jsonl(tmp_path / "b.jsonl", [prose(seed) for seed in range(100, 400)])
    sources = [{"path": a, "weight": 1.0}, {"path": b, "weight": 1.0}]
    once = made(tmp_path / "once", sources=sources)
    assert [each["repeats"] for each in once["sources"]] == pytest.approx([1, 1 / 3], abs=0.01)
    assert once["sources"][0]["documents"] == 100
    assert once["sources"][1]["documents"] == pytest.approx(100, abs=25)
    assert once["removed"]["mixture"] == 300 - once["sources"][1]["documents"]
    repeated = made(tmp_path / "repeated", sources=sources, max_repeats=2.0)
    assert repeated["sources"][0]["documents"] == 200
    texts = [text for text, source in rows(tmp_path / "repeated") if source == "a.jsonl"]
    assert texts[:100] != texts[100:]
    assert len(set(texts)) == 100


def test_what_holds_held_out_text_is_removed(tmp_path: Path) -> None:
    words = prose(1000).split()
    inner = " ".join(words[40:53]).upper()
    source = jsonl(
        tmp_path / "a.jsonl",
        [prose(0), prose(1) + " " + inner + ", and on", prose(2) + " " + " ".join(words[40:52])],
    )
    (tmp_path / "held.txt").write_text(" ".join(words))
    sheet = made(
        tmp_path / "out", sources=[{"path": source}], decontamination={"held_out": [tmp_path / "held.txt"]}
    )
    assert [each["place"] for each in removals(tmp_path / "out")] == ["a.jsonl:2"]
    assert sheet["removed"] == {"decontamination.held_out": 1}


@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD")])
@pytest.mark.parametrize("normalise", [True, False])
def test_held_out_text_is_found_in_any_normalisation_form(
    tmp_path: Path, forms: tuple[Literal["NFC", "NFD"], Literal["NFC", "NFD"]], normalise: bool
) -> None:
    words = [f"{word}é" for word in prose(1000).split()[:20]]
    held, read = (unicodedata.normalize(form, " ".join(words)) for form in forms)
    source = jsonl(tmp_path / "a.jsonl", [prose(0), prose(1) + " " + read])
    (tmp_path / "held.txt").write_text(held, encoding="utf-8")
    settings = {"held_out": [tmp_path / "held.txt"]}
    sheet = made(tmp_path / "out", sources=[{"path": source}], decontamination=settings, normalise=normalise)
    assert sheet["removed"] == {"decontamination.held_out": 1}


@pytest.mark.skipif(os.name == "nt", reason="names are text on Windows")
def test_files_whose_names_are_no_text_are_read(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"of \xff")
    folder.mkdir()
    jsonl(folder / os.fsdecode(b"\xff.jsonl"), [prose(0), "short"])
    held = jsonl(tmp_path / os.fsdecode(b"held \xff.jsonl"), [prose(1)])
    sheet = made(tmp_path / "out", sources=[{"path": str(folder)}], decontamination={"held_out": [str(held)]})
    assert (sheet["documents"], [each["place"] for each in removals(tmp_path / "out")]) == (
        1,
        ["\ufffd.jsonl:2"],
    )
    assert [source for _, source in rows(tmp_path / "out")] == ["of \ufffd"]


def test_nothing_left_is_said_with_what_removed_it(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", ["one two", "three", "# " * 80])
    result = roots_compress("data", "prepare", source, "--out", tmp_path / "out")
    assert_refused(
        result, "SRC: no document is left of 3", "2 by length.min_words", "1 by length.min_word_characters"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_text_without_spaces_is_told_which_bounds_to_set(tmp_path: Path) -> None:
    drawn = random.Random(0)
    text = "".join(chr(drawn.randint(0x4E00, 0x9FFF)) for _ in range(3000))
    arguments = ("data", "prepare", jsonl(tmp_path / "a.jsonl", [text]), "--out", tmp_path / "out")
    result = roots_compress(*arguments)
    bounds = ["--min-words", "--max-word-characters"]
    assert_refused(result, "1 by length.min_words", "Words are counted by the spaces", *bounds)
    result = roots_compress(*arguments, bounds[0], "1", bounds[1], "1000000")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("transient", [True, False])
def test_the_work_stays_where_the_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transient: bool
) -> None:
    source = jsonl(tmp_path / "a.jsonl", map(prose, range(8)))
    lines = text_lines

    def failing(path: Path) -> Iterator[str]:
        for number, line in enumerate(lines(path)):
            if number == 5:
                raise OSError(5, "Input/output error")
            yield line

    if transient:
        monkeypatch.setattr(readers, "text_lines", failing)
    else:
        source.write_text(source.read_text() + "{")
    with pytest.raises(InputError, match="Input/output error" if transient else "not JSON"):
        made(tmp_path / "out", sources=[{"path": source}])
    assert (tmp_path / ".out.partial").exists() == transient


def test_a_full_disk_is_told_with_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal.Journal, "commit", full)
    with pytest.raises(StageError, match="output cannot be written: No space left on device") as caught:
        made(tmp_path / "out", sources=[{"path": jsonl(tmp_path / "a.jsonl", map(prose, range(8)))}])
    assert caught.value.where == str(tmp_path / "out")
    assert (tmp_path / ".out.partial").is_dir()


def test_a_corpus_that_another_command_has_just_made_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = jsonl(tmp_path / "a.jsonl", map(prose, range(8)))
    out, work = tmp_path / "out", tmp_path / ".out.partial"
    acquire = WriterLock.acquire
    held = []

    def late(lock: WriterLock) -> None:
        monkeypatch.setattr(WriterLock, "acquire", acquire)
        made(out, sources=[{"path": source}])
        work.mkdir()
        acquire(lock)

    def removing(path: Path) -> None:
        if path == work:
            with pytest.raises(InputError, match="another process"):
                WriterLock(work, "corpus", "--out").acquire()
            held.append(path)
        remove_folder(path)

    monkeypatch.setattr(WriterLock, "acquire", late)
    monkeypatch.setattr(prepare_module, "remove_folder", removing)
    assert made(out, sources=[{"path": source}])["documents"] == 8
    assert held == [work, work], "the folder is removed while another command could lock it"
    assert not work.exists()


def test_languages_are_told(tmp_path: Path) -> None:
    english = "The old man who lived in the small house by the river had never seen the sea in his life. " * 6
    german = (
        "Der alte Mann, der in dem kleinen Haus am Fluss wohnte, hatte das Meer in seinem Leben nie gesehen. "
        * 6
    )
    source = jsonl(tmp_path / "a.jsonl", [english, german])
    arguments = (
        "data",
        "prepare",
        source,
        "--out",
        tmp_path / "out",
        "--language",
        "en",
        "--set",
        "repetition.max_ngrams=[1,1,1,1,1,1]",
        "--set",
        "repetition.max_top_ngrams=[1,1,1]",
    )
    result = roots_compress(*arguments)
    assert result.exit_code == 0, result.output
    assert [(each["place"], each["reason"]) for each in removals(tmp_path / "out")] == [
        ("a.jsonl:2", "language.keep")
    ]


def test_json_lines_are_written_in_the_sources_order(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", map(prose, range(6)))
    made(tmp_path / "out", sources=[{"path": source}], format="jsonl", shuffle=False, shard_bytes=2048)
    assert len(list((tmp_path / "out").glob("*.jsonl.zst"))) == 2
    made(tmp_path / "again", sources=[{"path": tmp_path / "out"}], shuffle=False)
    assert [text for text, _ in rows(tmp_path / "again")] == [prose(seed) for seed in range(6)]
