"""People of a video over time: which of them are the same person. Over tables alone, without pixels and networks."""
