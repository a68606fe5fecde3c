"""What recipes are made of: each stage keeps its result in the run's workspace."""
