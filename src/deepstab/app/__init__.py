"""The page of `deepstab app`: a video in, before and after side by side."""
