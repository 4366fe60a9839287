"""Checkpoints: the catalogue of published ones, downloads, checks and loading."""
