"""DVC stage: frames and Farneback flow of every pair, cached to Arrow shards in data/shards."""

import argparse
import shutil
import time
from pathlib import Path

from deepstab.errors import run_stage, stage_imports

with stage_imports():
    from deepstab.config import load_params
    from deepstab.data.flow_cache import fill_cache
    from deepstab.data.manifest import MANIFEST_NAME, Manifest
    from deepstab.data.shards import ShardIndex
    from deepstab.tracking.durations import remember_duration
    from deepstab.tracking.store import project_root


def main() -> None:
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--raw", type=Path, default=Path("data/raw"))
    parser.add_argument("--out", type=Path, default=Path("data/shards"))
    args = parser.parse_args()
    params = load_params(args.params)
    manifest = Manifest.load(args.raw / MANIFEST_NAME)
    scratch = project_root() / ".scratch"
    shutil.rmtree(args.out, ignore_errors=True)
    computed = fill_cache(
        manifest,
        raw=args.raw,
        destination=args.out,
        scratch=scratch / "flow",
        params=params.flow,
    )
    duration_s, digest = time.monotonic() - started, ShardIndex.load(args.out).digest()
    remember_duration("flow", duration_s, digest=digest, scratch=scratch)
    print(f"flow: {computed} pairs computed, {len(manifest.pairs) - computed} reused")


if __name__ == "__main__":
    run_stage(main)
