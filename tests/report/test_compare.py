"""Runs side by side: what differs by more than noise, and what does not compare."""

from __future__ import annotations

import csv
from dataclasses import replace
from io import StringIO
from typing import Any

from roots_compress.report import compare_text
from roots_compress.report.comparability import NOT_MEASURED, Basis
from roots_compress.report.compare import Comparison, comparison
from roots_compress.report.differences import Axis
from roots_compress.report.page.pictures import compared_sizes
from roots_compress.results import RunMetrics
from roots_compress.tasks.registry import CAUSAL_LM, task_named
from tests.report.figures import PROTOCOL, run, speeds, stage

CLASSIFICATION = "classification"
RUN = run(stage(), stage(1, "quantize", size=2_000_000, perplexity=21.0))


def compared(*runs: RunMetrics, settings: tuple[dict[str, Any] | None, ...] = ()) -> Comparison:
    return comparison([(f"run{index}", each) for index, each in enumerate(runs)], settings)


def verdicts(found: Comparison) -> dict[str, str]:
    return {each.key: f"{each.verdict} {each.change}" for each in found.differences}


def test_last_stages_are_compared_figure_by_figure() -> None:
    other = run(stage(), stage(1, "quantize", size=1_000_000, perplexity=22.05, decode=(300.0, 240.0)))
    found = compared(RUN, other)
    assert verdicts(found) == {
        "bytes": "better -50.0%",
        "perplexity": "worse +5.0%",
        "bits_per_byte": "equal +0.0%",
        "prefill_speedup": "equal +0.0%",
        "decode_speedup": "better +200.0%",
        "peak_rss_bytes": "equal +0.0%",
    }
    assert "Size: run1 is best with 1.000 MB; run0 has 2.000 MB." in found.sentences
    assert "Perplexity: run0 is best with 21.000; run1 has 22.050." in found.sentences
    assert "Decode gain: run1 is best with 3.00x (2.45x to 3.67x); run0 has 1.00x (0.82x to 1.22x)." in (
        found.sentences
    )


def test_sizes_are_told_apart_and_never_written_with_an_exponent() -> None:
    sizes = (999_949_999, 999_950_000, 1_234_000_000, 9_999_600_000, 12_000)
    axis = Axis("bytes", "size", "size", "lower")
    shown = [axis.shown(each) for each in sizes]
    assert shown == ["999.9 MB", "1,000 MB", "1,234 MB", "10,000 MB", "0.01200 MB"]


def test_a_difference_that_no_digit_shows_is_none() -> None:
    other = run(stage(), stage(1, "quantize", size=2_000_000, perplexity=21.0001))
    found = compared(RUN, other)
    assert verdicts(found)["perplexity"] == "equal +0.0%"
    assert "Perplexity: no difference, 21.000." in found.sentences


def test_sizes_that_differ_by_less_than_the_change_shows_are_equal() -> None:
    found = compared(RUN, run(stage(), stage(1, "quantize", size=2_000_600, perplexity=21.0)))
    assert verdicts(found)["bytes"] == "equal +0.0%"
    assert "Size: no difference, 2.000 MB." in found.sentences
    found = compared(RUN, run(stage(), stage(1, "quantize", size=2_002_000, perplexity=21.0)))
    assert verdicts(found)["bytes"] == "worse +0.1%"


def test_a_difference_within_noise_is_no_difference() -> None:
    nearly = run(stage(), stage(1, "quantize", size=2_000_000, perplexity=21.2, decode=(110.0, 88.0)))
    intervals = {"perplexity": (19.0, 23.0)}
    one, other = (
        replace(each, stages=(first, replace(last, metrics=replace(last.metrics, intervals=intervals))))
        for each in (RUN, nearly)
        for first, last in [each.stages]
    )
    found = compared(one, other)
    assert verdicts(found)["decode_speedup"] == "within noise +10.0%"
    assert verdicts(found)["perplexity"] == "within noise +1.0%"
    assert verdicts(compared(RUN, other))["perplexity"] == "within noise +1.0%", "one interval holds both"
    told = " ".join(found.sentences)
    assert "Decode gain: run1 and run0 do not differ by more than the repeats do: 1.10x" in told
    assert "on another text it may be the other way round" in told


def test_rows_of_the_same_texts_are_told_apart_in_pairs() -> None:
    nats = [2.5, 3.5, 3.0, 2.8, 3.2, 2.6]
    worse, mixed = [0.02, 0.03, 0.025, 0.03, 0.02, 0.025], [0.3, -0.2, 0.1, -0.3, 0.2, 0.0]

    def measured(perplexity: float, more: list[float]) -> RunMetrics:
        scores = tuple((511 * (text + extra), 511) for text, extra in zip(nats, more, strict=True))
        last = stage(1, "quantize", perplexity=perplexity)
        wide = {"perplexity": (15.0, 30.0)}
        return run(stage(), replace(last, metrics=replace(last.metrics, intervals=wide, scores=scores)))

    before = measured(21.0, [0.0] * len(nats))
    assert verdicts(compared(before, measured(21.5, worse)))["perplexity"] == "worse +2.4%"
    found = compared(before, measured(21.4, mixed))
    assert verdicts(found)["perplexity"] == "within noise +1.9%"
    assert "the 95% interval of the difference holds 0" in " ".join(found.sentences)


def test_agreement_with_the_first_model_is_compared_where_it_was_measured() -> None:
    def with_kl(value: float) -> RunMetrics:
        first, last = RUN.stages
        quality = {**last.metrics.quality, "kl_mean": value}
        return replace(RUN, stages=(first, replace(last, metrics=replace(last.metrics, quality=quality))))

    found = compared(with_kl(0.02), with_kl(0.01))
    assert verdicts(found)["kl_mean"] == "better -0.01000"
    assert "Mean KL: run1 is best with 0.01000; run0 has 0.02000." in found.sentences
    assert "mean KL" not in compare_text.tables(found)[0].headings


def test_other_tokenizers_compare_bits_per_byte_alone() -> None:
    found = compared(RUN, replace(RUN, protocol=replace(PROTOCOL, tokenizer_sha256="c" * 64)))
    assert "perplexity" not in verdicts(found)
    assert "bits_per_byte" in verdicts(found)
    assert "The tokenizers differ: perplexity cannot be compared; compared are bits/byte." in found.remarks


def test_agreement_is_left_out_where_tokenizers_differ_and_no_sentence_is_empty() -> None:
    def classifier(tokenizer: str) -> RunMetrics:
        first = stage()
        timings = {each.figure: speeds(10.0) for each in task_named(CLASSIFICATION).workloads}
        quality = {"accuracy": 0.9, "macro_f1": 0.9, "torch_accuracy": 0.9, "kl_mean": 0.01}
        metrics = replace(first.metrics, quality=quality, timings=timings)
        protocol = replace(PROTOCOL, tokenizer_sha256=tokenizer * 64)
        row = replace(first, metrics=metrics)
        return run(row, task=CLASSIFICATION, protocol=protocol)

    found = compared(classifier("b"), classifier("c"))
    assert verdicts(found)["accuracy"] == "equal +0.0000"
    assert found.remarks[0] == "Agreement with the first model cannot be compared: the tokenizers differ."
    assert not [each for each in found.remarks if each.startswith("The tokenizers")]


def test_likeness_is_compared_between_runs_of_one_first_model_only() -> None:
    task = task_named("sentence_embedding")

    def encoder(cosine: float, parameters: int = 2_000_000) -> RunMetrics:
        timings = {each.figure: speeds(10.0) for each in task.workloads}
        rows = [stage(), stage(1, "quantize")]
        for index, value in enumerate((1.0, cosine)):
            quality = {"cosine": value, "torch_cosine": value}
            changes: dict[str, Any] = {"quality": quality, "timings": timings, "parameters": parameters}
            rows[index] = replace(rows[index], metrics=replace(rows[index].metrics, **changes))
        return run(*rows, task=task.name)

    runs = [encoder(0.95), encoder(0.99)]
    found = compared(*runs)
    assert verdicts(found)["cosine"] == "better +0.0400"
    assert compared_sizes(task, found, runs) is not None
    runs = [encoder(0.95), encoder(0.99, parameters=1_000_000)]
    found = compared(*runs)
    assert compared_sizes(task, found, runs) is None
    assert "cosine" not in verdicts(found)
    assert not [each for each in found.sentences if "osine" in each]
    began = "cannot be compared: the runs began with different models."
    assert f"Agreement with the first model {began}" in found.remarks
    assert "cosine" in compare_text.tables(found)[0].headings


def test_other_texts_compare_no_quality_and_other_machines_no_speed() -> None:
    protocol = replace(PROTOCOL, text_sha256="c" * 64)
    found = compared(RUN, replace(RUN, protocol=protocol, machine={"cpu": "y"}))
    assert verdicts(found).keys() == {"bytes", "peak_rss_bytes"}
    assert found.remarks[:2] == (
        "Quality does not compare: the texts differ.",
        "Gains in speed cannot be compared: the runs' cpu differ.",
    )


def test_a_table_of_two_runs_names_them_once() -> None:
    headings, rows = compare_text.difference_table(compared(RUN, RUN))
    assert (headings, rows[0]) == (["figure", "run1 against run0", "verdict"], ["size", "+0.0%", "equal"])
    headings, rows = compare_text.difference_table(compared(RUN, RUN, RUN))
    assert headings == ["run", "figure", "against run0", "verdict"]
    assert rows[0] == ["run1", "size", "+0.0%", "equal"]


def test_settings_that_differ_are_listed_by_key_and_stage() -> None:
    prune = {"kind": "prune", "name": "cut", "ratio": 0.25, "calibration": {"windows": 8}}
    one = {"name": "a", "seed": 0, "stages": [prune]}
    two = {"name": "b", "seed": 1, "stages": [{**prune, "ratio": 0.5}, {"kind": "quantize", "name": "q"}]}
    found = compared(RUN, RUN, settings=(one, two))
    assert [(each.key, each.values) for each in found.settings] == [
        ("stages", ("cut", "cut > q")),
        ("seed", ("0", "1")),
        ("stages[cut].ratio", ("0.25", "0.5")),
    ]
    assert r"| stages\[cut\].ratio | 0.25 | 0.5 |" in compare_text.markdown(found)
    without, with_group, other = (
        {"seed": 0, "stages": [{"name": "prune", "recovery": each}]}
        for each in (None, {"rank": 1, "steps": 3}, {"rank": 2, "steps": 3})
    )
    found = compared(RUN, RUN, RUN, settings=(without, with_group, other))
    assert [(each.key, each.values) for each in found.settings] == [
        ("stages[prune].recovery", ("", '{"rank": 1, "steps": 3}', '{"rank": 2, "steps": 3}')),
        ("stages[prune].recovery.rank", ("", "1", "2")),
    ]
    unknown = compared(RUN, RUN, RUN, settings=(one, None, two))
    assert [each.values for each in unknown.settings][1:] == [("0", "n/a", "1"), ("0.25", "n/a", "0.5")]
    assert any("The settings of run1 are not known" in remark for remark in unknown.remarks)


def test_figures_in_json_are_a_value_and_an_interval() -> None:
    found = compared(RUN, RUN)
    document = found.to_json()
    assert document.keys() == vars(found).keys()
    for row in document["rows"]:
        assert all(figure.keys() == {"value", "interval"} for figure in row["figures"].values())
    assert found.rows[0].figures["perplexity"].paired is not None


def test_a_comparison_as_csv_has_a_row_for_each_stage_of_each_run() -> None:
    rows = list(csv.DictReader(StringIO(compare_text.csv(compared(RUN, RUN)))))
    assert [(row["run"], row["stage"]) for row in rows] == [
        *(("run0", "baseline"), ("run0", "quantize")),
        *(("run1", "baseline"), ("run1", "quantize")),
    ]
    assert float(rows[1]["decode_speedup_high"]) > float(rows[1]["decode_speedup"]) == 1.0


def test_two_of_three_may_be_best() -> None:
    worse = run(stage(), stage(1, "quantize", size=3_000_000))
    assert "Size: run0 and run1 are best with 2.000 MB." in compared(RUN, RUN, worse).sentences


def test_perplexities_of_two_tokenizers_compare_by_bits_per_byte_where_they_can() -> None:
    basis, metric = Basis(same_tokenizer=False), CAUSAL_LM.metric
    before = {"perplexity": 16.0, "bits_per_byte": 1.0}
    ratio, remark = basis.compare(metric, before, {"perplexity": 9.0, "bits_per_byte": 1.25})
    assert ratio == 2.0
    assert "compared by bits_per_byte, 1.25 against 1" in remark
    assert basis.compare(metric, before, {"perplexity": 9.0})[0] is None
    assert basis.compare(metric, {}, before) == (None, NOT_MEASURED)
    beyond = basis.compare(metric, before, {"perplexity": 9.0, "bits_per_byte": 1e6})
    assert beyond[0] is None
    assert beyond[1].endswith("which is beyond any ratio")
