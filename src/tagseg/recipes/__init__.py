"""One folder a paper, the references, and the catalog."""
