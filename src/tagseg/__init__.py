"""Pixel-level semantic segmentation learned from image-level tags."""
