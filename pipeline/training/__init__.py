"""Training on annotated images. The loop and everything that it imports need only torch, torchvision, numpy, OpenCV."""
