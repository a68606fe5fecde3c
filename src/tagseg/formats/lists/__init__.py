"""Lists of photos and of classes."""
