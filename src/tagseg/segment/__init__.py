"""Train and apply segmenters."""
