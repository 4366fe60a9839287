"""Checkpoints: the catalogue of published ones, and how a file is found, checked and loaded."""
