"""How far is the network's motion from what the scorer sees, once it is planned and taken away?

Nothing is rendered: the path is planned from the motion of each generator, and what is left is
measured on the motion that SIFT finds in the clip, the scorer's own. That motion, planned itself,
is the limit. Prints jitter and roll jitter, output / input, stability, and the crop that is kept.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from benchmarks.quality.measure import find_clips, group_of
from numpy.typing import NDArray

from deepstab.cli.videos import parse_crop
from deepstab.data.flow import with_flow
from deepstab.image import REFERENCE_WIDTH_PX
from deepstab.metrics.motion import detect_features
from deepstab.metrics.motion import estimate_motion as estimate_scored_motion
from deepstab.metrics.ratios import geometric_mean, ratio
from deepstab.metrics.stability import CameraPath, residual_jitter, roll_jitter, stability_score
from deepstab.models.checkpoints import load_weights
from deepstab.models.generator import StabGenerator
from deepstab.stabilize.estimates import estimate_motion
from deepstab.stabilize.planning import stabilized_motion
from deepstab.stabilize.whole_video import Crop, plan_video, smoothing_period
from deepstab.video.frames import probe, read_frames


def scored_motion(path: Path, aspect: float) -> NDArray[np.float64]:
    """The scorer's motion in the planner's convention: frame to previous frame, isotropic."""
    found = [(0.0, 0.0, 0.0, 0.0)]
    last = None
    for frame in read_frames(path):
        features = detect_features(frame)
        if last is not None:
            motion = estimate_scored_motion(last, features)
            shift = (motion.shift_x_px, motion.shift_y_px)
            found.append((*shift, motion.angle_rad, motion.log_scale))
        last = features
    return inverted(np.array(found) * isotropic(aspect))


def isotropic(aspect: float) -> NDArray[np.float64]:
    return np.array([2 * np.sqrt(aspect) / REFERENCE_WIDTH_PX] * 2 + [1.0, 1.0])


def inverted(motion: NDArray[np.float64]) -> NDArray[np.float64]:
    factor = np.exp(-motion[:, 3] - 1j * motion[:, 2])
    shift = -factor * (motion[:, 0] + 1j * motion[:, 1])
    return np.stack([shift.real, shift.imag, -motion[:, 2], -motion[:, 3]], axis=1)


def camera_path(motion: NDArray[np.float64], aspect: float) -> CameraPath:
    path = np.cumsum(inverted(motion) / isotropic(aspect), axis=0)
    return CameraPath(path[:, :2], path[:, 2], path[:, 3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True, help="folder of videos")
    parser.add_argument("--crop", default="auto", help="as of `deepstab stabilize`")
    parser.add_argument("--weights", action="append", default=[], help="one more checkpoint")
    args = parser.parse_args()
    crop = Crop(*parse_crop(args.crop))
    shipped = load_weights(None)
    torch.manual_seed(0)
    generators = {"untrained": StabGenerator(shipped.params.model).eval()}
    generators["shipped"] = shipped.build_generator()
    generators |= {path: load_weights(path).build_generator() for path in args.weights}
    size = (shipped.params.flow.width, shipped.params.flow.height)
    rows: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for clip in find_clips(args.clips):
        info, group = probe(clip), group_of(clip.relative_to(args.clips))
        aspect = info.width / info.height
        seen = scored_motion(clip, aspect)
        small = list(with_flow(read_frames(clip, size=size), shipped.params.flow))
        motions, cuts = {"SIFT": seen}, list[int]()
        for name, generator in generators.items():
            moved = estimate_motion(
                small,
                generator,
                aspect=aspect,
                context_frames=shipped.params.model.learned_steps + 1,
            )
            motions[name], cuts = moved.motion, moved.cuts
        seen[[0, *cuts]] = 0
        before = camera_path(seen, aspect)
        for name, motion in motions.items():
            period = smoothing_period(float(info.frame_rate))
            plan = plan_video(motion, crop, aspect=aspect, period=period, cuts=cuts)
            left = stabilized_motion(seen, plan)
            left[[0, *cuts]] = 0
            after = camera_path(left, aspect)
            row = (
                ratio(residual_jitter(after), residual_jitter(before)),
                ratio(roll_jitter(after), roll_jitter(before)),
                stability_score(after),
                plan.zoom,
            )
            rows.setdefault((group, name), []).append(row)
            print(f"{clip.name:36} {name:12} " + " ".join(f"{value:6.3f}" for value in row))
    print("\njitter and roll / input: geometric mean (worst jitter); stability and crop: mean")
    for (group, name), found in rows.items():
        jitter, roll, stability, zoom = zip(*found, strict=True)
        print(
            f"{group:7} {name:12} {geometric_mean(jitter):.3f} ({max(jitter):.2f}) "
            f"{geometric_mean(roll):.3f} {np.mean(stability):.3f} {np.mean(zoom):.3f}"
        )


if __name__ == "__main__":
    main()
