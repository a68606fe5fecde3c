"""Tag files and annotations of any tool: text in, rows of photos and tags out."""
