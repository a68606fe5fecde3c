"""Photos with tags in, arrays out."""
