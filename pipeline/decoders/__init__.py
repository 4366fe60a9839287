"""Decoders of single formats, for what Pillow reads wrongly or accepts although it is damaged."""
