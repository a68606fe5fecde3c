"""The papers' own ablations, rerun on the user's photos: one file a paper."""
