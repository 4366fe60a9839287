"""Videos: each is cut into shards at key frames, and each of its frames is one item."""
