"""Where clips come from and how they reach the network: sources, video files, flow, shards."""
