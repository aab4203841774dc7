"""Video files in, frames out, and back again."""
