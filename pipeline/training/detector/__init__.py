"""Learning where people are: images, their views, and the loss of a YOLO network."""
