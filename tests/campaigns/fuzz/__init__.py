"""Malformed files by chance, and what real code makes of them."""
