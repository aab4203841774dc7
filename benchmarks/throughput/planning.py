"""Plan two hours of 25 frames/s for one crop, from motion by chance; prints its processor seconds.

python -m benchmarks.throughput.planning [frames]
"""

from __future__ import annotations

import sys
import time

import numpy as np

from deepstab.stabilization.planning import WOBBLE_SHARE, plan_corrections
from deepstab.stabilization.wobble import held_back, quick_part

_CROP, _ASPECT = 0.1, 16 / 9


def main() -> None:
    num_frames = int(sys.argv[1]) if len(sys.argv) > 1 else 180_000
    rng = np.random.default_rng(0)
    motion = np.diff(rng.normal(0, 0.01, (num_frames, 4)), axis=0, prepend=0)
    wobble = quick_part(rng.normal(0, 1e-3, (num_frames, 6, 2)), sigma=4, cuts=[])
    wobble = held_back(wobble, _ASPECT, WOBBLE_SHARE * _CROP)
    began = time.process_time()
    plan_corrections(motion, wobble, aspect=_ASPECT, period=60, least_visible=1 - _CROP, cuts=[])
    print(f"{time.process_time() - began:.2f} s of processor for {num_frames} frames")


if __name__ == "__main__":
    main()
