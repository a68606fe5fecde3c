"""Make labels follow the image."""
