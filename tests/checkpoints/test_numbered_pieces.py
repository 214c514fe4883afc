"""Folders of Marian and M2M100 as they are published: SentencePiece models and a list of numbers."""

from __future__ import annotations

import json
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import M2M100Tokenizer, MarianTokenizer, PreTrainedTokenizerFast

from roots_compress.checkpoints.tokenizer import load_tokenizer, load_tokenizer_beside, save_tokenizer
from roots_compress.data.documents import TARGET
from roots_compress.data.languages import target_tokenizer, translating
from roots_compress.data.pairs import sides
from roots_compress.data.tokenizers import tokenizer_sha256
from roots_compress.errors import InputError, Key, SourceWarning
from tests.checkpoints.test_source_tokenizer import described

SCRIPTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Съешь же ещё этих мягких французских булок.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "צפרדע קטנה אוהבת לשיר בגשם.",
    "نص حكيم له سر قاطع وذو شأن عظيم.",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा।",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "키스의 고유조건은 입술끼리 만나야 한다.",
    "いろはにほへとちりぬるを、色は匂へど。",
    "我能吞下玻璃而不伤身体。",
)
UNSEEN = ("  two  spaces\tand ½ ﬁne ①②  ", "", "ℵ ꙮ lone", ">>fra<< A small frog 123.", "naïve café 🐸</s> x")


def model(seed: int, kind: str = "unigram") -> bytes:
    """Return a model of texts of beginnings and ends of words, some much more often than others."""
    draw, written = np.random.default_rng(seed), BytesIO()
    words = [word for text in SCRIPTS for word in (text.split() if " " in text else (text[:5], text[5:]))]
    parts = [part for word in words for cut in range(2, len(word)) for part in (word[:cut], word[cut:])]
    often = draw.zipf(1.3, len(parts)).clip(max=300)
    texts = [" ".join(draw.choice(parts, 8, p=often / often.sum())) for _ in range(900)]
    SentencePieceTrainer.train(
        sentence_iterator=iter((*texts, *SCRIPTS)),
        model_writer=written,
        vocab_size=700,
        model_type=kind,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return written.getvalue()


def marian(folder: Path, lacking: int = 0) -> Path:
    """Write a folder as Marian's converter does."""
    models = {"source.spm": model(0), "target.spm": model(1)}
    pieces: dict[str, None] = dict.fromkeys(("</s>", "<unk>"))
    for name, content in models.items():
        (folder / name).write_bytes(content)
        read = SentencePieceProcessor(model_proto=content)
        pieces |= dict.fromkeys(read.id_to_piece(number) for number in range(3, len(read) - lacking))
    tokens = [*pieces, ">>fra<<", "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    return folder


def test_a_pair_of_models_gives_the_ids_of_transformers(tmp_path: Path) -> None:
    config = {"tokenizer_class": "MarianTokenizer", "model_max_length": 512}
    source = described(marian(tmp_path), "marian", config)
    theirs = MarianTokenizer.from_pretrained(tmp_path)
    ours = load_tokenizer(source)
    save_tokenizer(ours, tmp_path / "saved")
    again = load_tokenizer_beside(tmp_path / "saved")
    differ = 0
    for text in (*SCRIPTS, *UNSEEN):
        read, said = theirs(text)["input_ids"], theirs(text_target=text)["input_ids"]
        differ += read != said
        for tokenizer in (ours, again):
            assert tokenizer(text)["input_ids"] == read, text
            assert target_tokenizer(tokenizer)(text)["input_ids"] == said, text
            assert sides([text], tokenizer, 512, name=TARGET, key=Key("length"))[0].ids == said
            for ids in (read, said):
                ours_says, theirs_says = (
                    str(each.decode(ids, skip_special_tokens=True)).strip() for each in (tokenizer, theirs)
                )
                assert ours_says == theirs_says
    assert differ > 5
    assert tokenizer_sha256(again) == tokenizer_sha256(ours)
    alone = PreTrainedTokenizerFast(tokenizer_object=ours.backend_tokenizer, eos_token="</s>")
    assert tokenizer_sha256(alone) != tokenizer_sha256(ours)
    assert (ours.pad_token_id, ours.eos_token_id) == (theirs.pad_token_id, theirs.eos_token_id)


def test_m2m100s_model_gives_the_ids_of_transformers(tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").write_bytes(content := model(0, "bpe"))
    read = SentencePieceProcessor(model_proto=content)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *(read.id_to_piece(number) for number in range(3, len(read)))]
    (tmp_path / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    source = described(tmp_path, "m2m_100", {"tokenizer_class": "M2M100Tokenizer", "src_lang": "de"})
    theirs = M2M100Tokenizer.from_pretrained(tmp_path)
    save_tokenizer(ours := load_tokenizer(source), tmp_path / "saved")
    for tokenizer in (ours, load_tokenizer_beside(tmp_path / "saved")):
        for text in (*SCRIPTS, *UNSEEN[:3]):
            ids = theirs(text)["input_ids"]
            assert tokenizer(text)["input_ids"] == ids, text
            said, right = (
                str(each.decode(ids[1:], skip_special_tokens=True)) for each in (tokenizer, theirs)
            )
            assert said.strip() == right.strip()
    pair = translating(ours, "ja", "zh")
    theirs.src_lang, theirs.tgt_lang = "ja", "zh"
    assert pair(SCRIPTS[8])["input_ids"] == theirs(SCRIPTS[8])["input_ids"]
    assert (
        sides([SCRIPTS[9]], pair, 99, name=TARGET, key=Key("length"))[0].ids
        == (theirs(text_target=SCRIPTS[9])["input_ids"])
    )
    for settings, fault in (({"src_lang": "xx"}, "language 'xx'"), ({"language_codes": "all"}, "'all'")):
        with pytest.raises(InputError, match=fault):
            load_tokenizer(described(tmp_path, "m2m_100", {"tokenizer_class": "M2M100Tokenizer", **settings}))


def test_what_is_no_whole_marian_is_named(tmp_path: Path) -> None:
    source = described(marian(tmp_path, lacking=3), "marian", None)
    with pytest.warns(SourceWarning, match=r"\d of its \d+ pieces have no number"):
        load_tokenizer(source)
    numbers = json.loads((tmp_path / "vocab.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SourceWarning)
        for token, number, fault in (("</s>", 7, "from 0 on"), ("</s>", [1], "from 0 on")):
            (tmp_path / "vocab.json").write_text(json.dumps(numbers | {token: number}))
            with pytest.raises(InputError, match=fault):
                load_tokenizer(source)
        named = {token if token != "</s>" else "end": number for token, number in numbers.items()}
        (tmp_path / "vocab.json").write_text(json.dumps(named))
        with pytest.raises(InputError, match="lacks the token '</s>'"):
            load_tokenizer(source)
        (tmp_path / "vocab.json").write_text(json.dumps(numbers))
        (tmp_path / "source.spm").write_bytes(b"nothing")
        with pytest.raises(InputError, match="cannot be read"):
            load_tokenizer(source)
    (tmp_path / "target.spm").unlink()
    with pytest.raises(InputError, match=r"no target\.spm"):
        load_tokenizer(source)
