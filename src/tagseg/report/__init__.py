"""The page that shows how good the masks are."""
