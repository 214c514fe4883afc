"""A forecast for the terminal: each row's shape, a table of costs, and the whole run."""

from __future__ import annotations

from collections.abc import Iterator

from roots_compress.io.disk import amount
from roots_compress.pipeline.forecast.forecast import Forecast, StageForecast
from roots_compress.pipeline.shape import Range, Shape
from roots_compress.report.table import Table, table_of

DOES = {"make": "make", "again": "make again", "reuse": "reuse"}
HEADINGS = ("stage", "", "parameters", "graph", "work", "checks", "memory", "disk")


def shape_lines(forecast: Forecast) -> Iterator[str]:
    """Yield each row's shape in words, one line each."""
    for each in (*forecast.stages, *forecast.search):
        yield f"{each.index:02d} {each.name}: {_shape(each.shape)}"


def table(forecast: Forecast) -> Table:
    """Return the costs of each row; a tilde marks values that a measurement decides."""
    known = forecast.probe_seconds > 0
    rows = [_cells(each, known=known) for each in (*forecast.stages, *forecast.search)]
    title, section = f"Plan of {forecast.name}", len(forecast.stages)
    return table_of(title, HEADINGS, rows, names=2, section=section)


def summary_lines(forecast: Forecast) -> Iterator[str]:
    """Yield the costs of the whole run, and what this machine lacks for it."""
    if not (forecast.to_make or forecast.to_try):
        yield "Nothing is to be made: a run only times all graphs again."
        return
    seconds, disk, minutes = forecast.seconds, amount(forecast.disk_bytes), forecast.search_minutes
    before, least = ("", "") if minutes is None else (" before the search", "at least ")
    if seconds is None:
        yield f"The run takes {least or 'about '}{disk} of disk; times and memory were not measured."
    else:
        timing, memory = duration(forecast.timing_seconds), amount(forecast.memory_bytes)
        yield (
            f"The run takes about {duration(seconds)}{before} ({timing} of it to time all graphs), {memory} "
            f"of memory and {least}{disk} of disk. "
            f"Measured on this machine in {forecast.probe_seconds:.0f} s."
        )
    if minutes is not None:
        yield f"The search begins no new candidate after {minutes:g} minutes."
    available = forecast.available_memory_bytes
    if available is not None and forecast.memory_bytes > available:
        yield f"Memory may not suffice: {amount(available)} are available."
    if forecast.disk_bytes > forecast.free_disk_bytes:
        yield f"The disk may not suffice: {amount(forecast.free_disk_bytes)} are free."
    if any(not each.certain for each in (*forecast.stages, *forecast.search)):
        yield "~ marks what measuring or timing decides; the likeliest is shown."


def _cells(each: StageForecast, *, known: bool) -> tuple[str, ...]:
    made = each.action != "reuse"
    sign = "" if each.certain else "~"
    disk = each.checkpoint_bytes + each.graph_bytes + each.working_bytes
    return (
        f"{each.index:02d} {each.name}",
        DOES[each.action],
        f"{sign}{each.parameters:,}",
        f"{sign}{amount(each.graph_bytes)}",
        duration(each.work_seconds) if made and known else "",
        duration(each.check_seconds) if made and known else "",
        amount(each.memory_bytes) if made and each.memory_bytes else "",
        amount(disk) if made else "",
    )


def _shape(shape: Shape) -> str:
    layers = " + ".join(f"{count} layer{'s' * (count != 1)}" for count in shape.layers)
    parts = [f"{layers} of width {shape.width:,}"]
    if shape.heads and shape.kv_heads and shape.head_dim:
        groups = "" if shape.kv_heads == shape.heads else f" ({_numbers(shape.kv_heads)} key/value)"
        parts.append(f"{_numbers(shape.heads)} heads{groups} of {_numbers(shape.head_dim)}")
    if shape.key_heads and shape.value_heads:
        values = _numbers(shape.value_heads)
        parts.append(f"{_numbers(shape.key_heads)} key and {values} value heads of linear attention")
    if shape.conv_channels:
        parts.append(f"{_numbers(shape.conv_channels)} convolution channels")
    if shape.channels:
        experts = f"{_numbers(shape.experts)} experts of " if shape.experts else ""
        parts.append(f"{experts}{_numbers(shape.channels)} MLP channels")
    parts.append(f"vocabulary of {shape.vocabulary:,}")
    parts.append(f"context of {shape.positions:,}")
    return ", ".join(parts)


def _numbers(found: Range) -> str:
    least, most = found
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def duration(seconds: float) -> str:
    """Return a time for people: `45 s`, `3:20 min`, `2:05 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours}:{left:02d} h" if hours else f"{minutes}:{rest:02d} min"
