"""Masks as other tools read them: arrays in, files out, a module for each format."""
