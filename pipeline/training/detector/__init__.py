"""Training of person detectors: images, augmentation and the loss of a YOLO network."""
