"""The `deepstab` command."""
