"""Training of pose networks: people cut out of images, augmentation, targets and losses."""
