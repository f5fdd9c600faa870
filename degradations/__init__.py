"""Degradation plug-ins: one file per operator family."""
