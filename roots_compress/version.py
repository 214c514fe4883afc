"""The version of the package, for modules that must not import what the package itself offers."""

VERSION = "0.1.0"
