"""The models that are recorded: every variant of the importers' and the exporter's tests."""

from __future__ import annotations

from pathlib import Path

from roots_compress.checkpoints.checkpoint import save_checkpoint
from tests.chains import write_text
from tests.compare.ggufs import write_gguf
from tests.compare.test_models import GGUFS, ids_of, lengths
from tests.compare.vocabularies import VOCABULARIES
from tests.export.test_graph import FUSED, SWITCHES
from tests.families.sources import save_source, source_model
from tests.families.test_families import VARIANTS
from tests.tiny import tiny_checkpoint


def write_sources(folder: Path) -> None:
    """Write every model, and the text that the stages read."""
    models = folder / "models"
    for index, (family, changes) in enumerate(VARIANTS):
        save_source(source_model(family, **changes), models / f"{family}-{index:02}")
    for name, switches in {**SWITCHES, **{f"fused {name}": given for name, given in FUSED.items()}}.items():
        save_checkpoint(tiny_checkpoint(**switches), models / f"roots-{name.replace(' ', '-')}")
    for family, kind in GGUFS:
        vocabulary = VOCABULARIES[kind]()
        model = source_model(family, **lengths(family), **ids_of(vocabulary.reference()))
        name = f"gguf-{family}-{kind.replace(', ', '-').replace(' ', '-')}"
        write_gguf(models / f"{name}.gguf", model, vocabulary)
    write_text(folder / "text")
