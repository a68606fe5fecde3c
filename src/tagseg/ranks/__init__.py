"""Several processes that share one run: who they are, what they tell one another, how they end."""
