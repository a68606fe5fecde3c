"""Ground truth: the only door to human annotation of pixels."""
