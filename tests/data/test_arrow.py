"""Arrow files: streams and files with an index, and the folders that `datasets` saves."""

from __future__ import annotations

import contextlib
import json
import lzma
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pytest

from roots_compress.configs.data import DataConfig
from roots_compress.data.corpora import load_text
from roots_compress.data.sources.folders import list_folder
from roots_compress.data.sources.labels import Labels
from roots_compress.data.sources.plain import PlainTexts
from roots_compress.data.sources.readers import read_documents, stream_documents
from roots_compress.errors import InputError

NAMES = ("positive", "negative")
FEATURES = {
    "info": {
        "features": {
            "text": {"dtype": "string", "_type": "Value"},
            "label": {"names": [*reversed(NAMES)], "_type": "ClassLabel"},
        }
    }
}


def write(path: Path, rows: int = 3, *, first: int = 0, batch: int = 2, **columns: Any) -> Path:
    """Write a stream of Arrow as `datasets` does, or by its ending a file with an index."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = range(first, first + rows)
    content = columns or {
        "text": [f"text {each}" for each in numbers],
        "label": [each % 2 for each in numbers],
    }
    table = pa.table({"other": [None] * len(next(iter(content.values()))), **content})
    table = table.replace_schema_metadata({b"huggingface": json.dumps(FEATURES).encode()})
    make = pa.ipc.new_file if path.suffix == ".feather" else pa.ipc.new_stream
    with path.open("wb") as file, make(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return path


def saved_set(folder: Path, shards: int = 2, **state: Any) -> Path:
    """Write a folder as `Dataset.save_to_disk` does."""
    names = [f"data-{number:05d}-of-{shards:05d}.arrow" for number in range(shards)]
    for number, name in enumerate(names):
        write(folder / name, first=3 * number)
    said = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_split": None}
    (folder / "state.json").write_text(json.dumps({**said, **state}))
    (folder / "dataset_info.json").write_text(json.dumps(FEATURES["info"]))
    return folder


def texts(paths: list[Path]) -> list[str]:
    return [document.text for document in chain(*map(read_documents, paths))]


@pytest.mark.parametrize("name", ["a.arrow", "a.feather"])
@pytest.mark.parametrize("batch", [2, 5000])
def test_rows_are_read_in_order_each_with_its_place(name: str, batch: int, tmp_path: Path) -> None:
    path = write(tmp_path / name, rows=2500, batch=batch)
    found = list(stream_documents(path))
    assert [(where, document.text) for where, document in found] == [
        (f"{path}: row {number + 1}", f"text {number}") for number in range(2500)
    ]


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_feather_is_read_however_it_is_compressed(compression: str, tmp_path: Path) -> None:
    path = tmp_path / "a.feather"
    pyarrow.feather.write_feather(pa.table({"text": ["a", None, "c"]}), path, compression=compression)
    assert texts([path]) == ["a", "c"]


def test_numbers_of_labels_mean_the_names_that_the_file_gives(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow")
    labels = [document.label for document in read_documents(path, Labels("text", "label", NAMES))]
    assert labels == [1, 0, 1]  # The file's 0 is called negative.


def test_objects_within_rows_are_read(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
    document = read_documents(write(tmp_path / "a.arrow", messages=[chat]))[0]
    assert [span.text for span in document.spans] == ["2 + 2?", "4"]


def test_of_a_saved_set_its_own_files_are_read(tmp_path: Path) -> None:
    """What `datasets` keeps beside them, as the results of `map`, is another text of the same rows."""
    folder = saved_set(tmp_path / "set")
    write(folder / "cache-0f7554ad66f91963.arrow", text=["mapped"])
    listing = list_folder(folder, PlainTexts())
    assert texts(listing.files) == [f"text {number}" for number in range(6)]
    assert listing.passed_over["not of the data set beside it"] == ["cache-0f7554ad66f91963.arrow"]
    text = load_text(DataConfig(train=(folder,)), seed=0)
    assert len(text.train) + len(text.held_out) == 6


def test_a_saved_set_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    folder = saved_set(tmp_path / "set")
    (folder / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(InputError, match="data-00001-of-00002"):
        list_folder(folder, PlainTexts())


def test_a_selection_of_rows_is_refused(tmp_path: Path) -> None:
    folder = saved_set(tmp_path / "set", _indices_data_files=[{"filename": "indices.arrow"}])
    with pytest.raises(InputError, match="selection") as caught:
        list_folder(folder, PlainTexts())
    assert "state.json" in str(caught.value.where)


@pytest.mark.parametrize("splits", [("train",), ("train", "test")])
def test_of_several_splits_one_must_be_named(splits: tuple[str, ...], tmp_path: Path) -> None:
    for split in splits:
        saved_set(tmp_path / split)
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
    if len(splits) == 1:
        assert len(list_folder(tmp_path, PlainTexts()).files) == 2
        return
    with pytest.raises(InputError, match="train, test") as caught:
        list_folder(tmp_path, PlainTexts())
    assert str(tmp_path / "train") in str(caught.value.remedy)
    assert len(list_folder(tmp_path / "test", PlainTexts()).files) == 2


def test_a_state_of_another_program_is_none_of_a_set(tmp_path: Path) -> None:
    write(tmp_path / "a.arrow")
    (tmp_path / "state.json").write_text("[1]")
    assert len(list_folder(tmp_path, PlainTexts()).files) == 1


@pytest.mark.parametrize("damage", ["cut", "text", "other column", "old"])
@pytest.mark.parametrize("ending", [".arrow", ".feather"])
def test_a_damaged_file_is_refused_by_name(damage: str, ending: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a{ending}", rows=50)
    raw = path.read_bytes()
    if damage == "other column":
        write(path, title=["a"])
    else:
        path.write_bytes(
            {"cut": raw[: len(raw) // 2], "text": b"some text\n" * 9, "old": b"FEA1" + raw}[damage]
        )
    with pytest.raises(InputError) as caught:
        read_documents(path)
    assert str(path) in str(caught.value.where)
    assert caught.value.remedy


def test_a_byte_that_is_changed_is_found_or_does_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", rows=5)
    raw = path.read_bytes()
    for place in range(0, len(raw), 13):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1 :])
        with contextlib.suppress(InputError):
            assert len(read_documents(path)) <= 5


def test_a_compressed_one_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow.xz"
    path.write_bytes(lzma.compress(write(tmp_path / "b.arrow").read_bytes()))
    assert texts([path]) == ["text 0", "text 1", "text 2"]
