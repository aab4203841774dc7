"""Pure measures: image quality against a reference, and stabilization quality of a video."""
