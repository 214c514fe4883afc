"""A translator's tokenizer tells languages apart: those of sources and of targets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, processors
from transformers import NllbTokenizer, PreTrainedTokenizerFast

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.data.documents import TARGET
from roots_compress.data.languages import TARGET_LANGUAGE, translating
from roots_compress.data.pairs import Frame
from roots_compress.errors import InputError
from tests.chains import QUANTIZE, carry_out, recipe
from tests.families.sources import seq2seq
from tests.tasks.commands import roots
from tests.tiny import VOCAB_SIZE, tiny_tokenizer

LANGUAGES = ("eng_Latn", "deu_Latn", "fra_Latn")


def tokenizer(*, before: bool = True) -> PreTrainedTokenizerFast:
    """Return one that puts the language before a text and its end after it, or both after it."""
    backend: Tokenizer = tiny_tokenizer().backend_tokenizer
    backend.add_special_tokens([*LANGUAGES, "</s>", "<pad>"])
    around = ["eng_Latn", "$A", "</s>"] if before else ["$A", "</s>", "eng_Latn"]
    ids = [(each, backend.token_to_id(each)) for each in ("eng_Latn", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single=around, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>")


@pytest.mark.parametrize("before", [True, False])
def test_each_side_has_its_language(before: bool) -> None:
    given = tokenizer(before=before)
    with pytest.raises(InputError, match="nothing names the one of the targets"):
        Frame.of(given, TARGET)
    told = translating(given, "deu_Latn", "fra_Latn")
    ids, end = told.get_vocab(), told.get_vocab()["</s>"]
    for frame, language in ((Frame.of(told), "deu_Latn"), (Frame.of(told, TARGET), "fra_Latn")):
        expected = ([ids[language]], [end]) if before else ([], [end, ids[language]])
        assert (frame.opening, frame.closing) == expected
    assert given("abc").input_ids != told("abc").input_ids
    with pytest.raises(InputError, match="is 'ger', which is no token"):
        translating(given, "eng_Latn", "ger")
    with pytest.raises(InputError, match="tells none apart"):
        translating(tiny_tokenizer(), "eng_Latn", "deu_Latn")


def test_a_piece_of_words_is_no_language() -> None:
    given = tokenizer()
    assert "a" in given.get_vocab()
    with pytest.raises(InputError, match="is 'a', which is no token"):
        translating(given, "eng_Latn", "a")
    given.add_tokens(["__a__"], special_tokens=True)
    assert translating(given, "eng_Latn", "a").init_kwargs[TARGET_LANGUAGE] == "__a__"


def test_sides_are_those_of_transformers_own_class() -> None:
    theirs = NllbTokenizer(src_lang="deu_Latn", tgt_lang="fra_Latn")
    plain = PreTrainedTokenizerFast(tokenizer_object=theirs.backend_tokenizer, eos_token="</s>")
    told = translating(plain, "eng_Latn", "fra_Latn")
    theirs.src_lang = "eng_Latn"
    assert Frame.of(told).around([]) == theirs("").input_ids
    assert Frame.of(told, TARGET).around([]) == theirs(text_target="").input_ids


def test_a_run_keeps_the_languages_that_it_is_given(tmp_path: Path) -> None:
    theirs = seq2seq("m2m_100", {"vocab_size": VOCAB_SIZE + 8})
    theirs.save_pretrained(tmp_path / "source")
    given = tokenizer()
    given.save_pretrained(tmp_path / "source")
    pairs = tmp_path / "pairs.jsonl"
    lines = [{"source": f"the {number} foxes", "target": f"{number} quick dogs"} for number in range(40)]
    pairs.write_text("\n".join(map(json.dumps, lines)))
    data = {"train": [str(pairs)], "eval_fraction": 0.25}
    model = str(tmp_path / "source")
    refused = roots("quantize", model, "--data", pairs, "--run", tmp_path / "other", code=2)
    assert "nothing names the one of the targets" in refused
    assert "--target-language" in refused
    languages = {"source_language": "deu_Latn", "target_language": "fra_Latn"}
    document = recipe(pairs, QUANTIZE, model=model, data={**data, **languages})
    metrics = carry_out(document, tmp_path / "run")
    assert metrics.stages[-1].metrics.quality["target_perplexity"] > 1
    made = load_checkpoint(tmp_path / "run" / "01-quantize" / "checkpoint")
    target = made.tokenizer.get_vocab()["fra_Latn"]
    assert Frame.of(made.tokenizer, TARGET).opening == [target]
    for folder in ("checkpoint", "onnx"):
        settings = tmp_path / "run" / "01-quantize" / folder / "generation_config.json"
        assert json.loads(settings.read_text())["forced_bos_token_id"] == target
