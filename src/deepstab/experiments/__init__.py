"""Whatever reads runs back: records, registry, lineage, reruns."""
