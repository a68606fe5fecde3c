"""Folders and files as people have them: read into photos, tags, lists and ground truth."""
