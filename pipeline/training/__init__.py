"""From an annotated collection to weights. The loop and all that it needs run with torch, numpy and OpenCV alone."""
