"""Evidence to training labels."""
