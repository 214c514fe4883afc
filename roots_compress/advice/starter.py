"""The recipe that `init` writes where no model is named: it is to be edited."""

from __future__ import annotations

STARTER = """\
# A first recipe: what to do to a model, stage by stage. Name your model below, then:
#
#   roots-compress validate recipe.yaml    # are the settings and the files right?
#   roots-compress run recipe.yaml         # carry it out; the report is runs/first/report.html
#
# `roots-compress init CKPT` looks at a model and writes a recipe that suits it.
name: first
model: path/to/checkpoint   # a folder of Hugging Face or of this program, or a GGUF file
stages:
  - kind: quantize          # 8-bit weights; a timing of some seconds chooses the kind of products
    scheme: int8
  # Smaller still: put these before `quantize`.
  # - kind: distill         # a student of about half the parameters learns from the model
  #   student: small
  # - kind: prune           # a quarter of its MLP channels goes
  #   ratio: 0.25
gates:                      # `run` leaves with exit code 3 when one is missed
  min_size_ratio: 2.5
"""
