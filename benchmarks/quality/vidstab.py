"""ffmpeg's vid.stab, what most people use today."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from deepstab.errors import VideoError


def vidstab_available() -> bool:
    """Whether ffmpeg is installed and was built with vid.stab."""
    if shutil.which("ffmpeg") is None:
        return False
    listing = subprocess.run(
        ["ffmpeg", "-hide_banner", "-filters"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return "vidstabdetect" in listing.stdout and "vidstabtransform" in listing.stdout


def vidstab(input_path: Path, output_path: Path, *, crf: int, preset: str) -> None:
    """Stabilize a file with ffmpeg's vid.stab, two passes, all filter settings at their defaults.

    The output is written when both passes have succeeded; audio is copied.

    Args:
        input_path: video to read.
        output_path: video to write (H.264, yuv420p); its suffix chooses the container.
        crf: constant rate factor of libx264, 0 (lossless) to 51.
        preset: speed preset of libx264, for example `medium`.

    Raises:
        VideoError: ffmpeg is missing, lacks vid.stab, or fails.
    """
    if not vidstab_available():
        raise VideoError(
            f"{input_path}: no ffmpeg with vid.stab was found; install one built with libvidstab"
        )
    source = str(input_path.resolve())
    encoder = ["-c:v", "libx264", "-crf", str(crf), "-preset", preset, "-pix_fmt", "yuv420p"]
    with tempfile.TemporaryDirectory() as folder:
        # Relative names: a path in a filter argument would need escaping.
        detect = ["-map", "0:v:0", "-vf", "vidstabdetect=result=transforms.trf"]
        _run_ffmpeg(["-i", source, *detect, "-f", "null", "-"], folder=folder, video=input_path)
        transform = ["-map", "0:v:0", "-vf", "vidstabtransform=input=transforms.trf", *encoder]
        audio = ["-map", "0:a?", "-c:a", "copy"]
        finished = f"stabilized{output_path.suffix}"
        _run_ffmpeg(["-i", source, *transform, *audio, finished], folder=folder, video=input_path)
        try:
            shutil.move(Path(folder) / finished, output_path)
        except OSError as error:
            raise VideoError(
                f"{output_path}: cannot be written: {error.strerror}; choose another path"
            ) from error


def _run_ffmpeg(arguments: list[str], *, folder: str, video: Path) -> None:
    done = subprocess.run(
        ["ffmpeg", "-hide_banner", "-nostdin", "-y", "-v", "error", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"exit status {done.returncode}"
        raise VideoError(f"{video}: ffmpeg vid.stab failed: {reason}; check that it plays")
