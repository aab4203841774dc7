"""Colors of video frames: between the YUV a file holds and 8-bit RGB.

Convention: one `ColorTags` serves both directions, so that a frame that is not changed comes back
with its colors. Chroma is replicated on the way to RGB and box-averaged on the way back, which are
exact inverses; no chroma plane is shifted.

The arithmetic is OpenCV's, on one 3x4 matrix: at 1280x720 it takes a third of the time of
swscale's accurate path, and swscale's fast path darkens frames by 1 to 1.5 levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import av
import cv2
import numpy as np
import numpy.typing as npt

from deepstab.image import Image

Planes = tuple[Image, Image, Image]

# Code points of ITU-T H.273, which libav shares.
_MATRIX_RGB = 0
_MATRIX_BT709 = 1
_MATRIX_UNSPECIFIED = 2
_MATRIX_RESERVED = 3
_RANGE_UNSPECIFIED = 0
_RANGE_LIMITED = 1
_RANGE_FULL = 2
# Weights of red and blue in luma. Source: ITU-T H.273, table 4.
_LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    6: (0.299, 0.114),  # BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
}
# Untagged video of at least this height is BT.709, as players take it; below, BT.601.
_HD_HEIGHT_PX = 720
# Codecs whose specification says that untagged samples have the limited range, gray ones too.
_LIMITED_BY_DEFAULT = frozenset(
    {"h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mpeg1video", "mpeg2video"}
)


@dataclass(frozen=True)
class ColorTags:
    """How the samples of a stream are to be read, as code points of ITU-T H.273.

    Attributes:
        matrix: matrix coefficients as tagged, 2 when unspecified.
        range: 0 unspecified (then limited), 1 limited, 2 full.
        primaries: color primaries as tagged, only passed on.
        transfer: transfer characteristic as tagged, only passed on.
    """

    matrix: int
    range: int
    primaries: int
    transfer: int

    def __post_init__(self) -> None:
        """Refuse a matrix that is not a fixed linear map.

        Raises:
            ValueError: the matrix has no luma weights (YCgCo, constant luminance, ICtCp).
        """
        if self.matrix != _MATRIX_UNSPECIFIED and self.matrix not in _LUMA_WEIGHTS:
            raise ValueError(f"color matrix {self.matrix} is not supported; convert to BT.709")


def tags_of(frame: av.VideoFrame, codec_name: str) -> ColorTags:
    """Read how the samples of a decoded frame are meant.

    Args:
        frame: a decoded frame of any pixel format.
        codec_name: name of the decoder, which decides what an untagged gray frame means.

    Returns:
        Tags that also serve to encode the frame as 8-bit YUV: RGB becomes limited BT.709.

    Raises:
        ValueError: the color matrix is not a fixed linear map.
    """
    matrix, color_range = int(frame.colorspace), int(frame.color_range)
    if matrix in (_MATRIX_RGB, _MATRIX_RESERVED):
        matrix = _MATRIX_UNSPECIFIED
    if _holds_rgb(frame):
        matrix, color_range = _MATRIX_BT709, _RANGE_LIMITED
    elif frame.format.name.startswith("yuvj"):
        color_range = _RANGE_FULL
    elif color_range == _RANGE_UNSPECIFIED and frame.format.name.startswith(("gray", "ya")):
        color_range = _RANGE_LIMITED if codec_name in _LIMITED_BY_DEFAULT else _RANGE_FULL
    return ColorTags(
        matrix=matrix,
        range=color_range,
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
    )


def to_rgb(frame: av.VideoFrame, tags: ColorTags, size: tuple[int, int] | None = None) -> Image:
    """Convert a decoded frame to RGB.

    Args:
        frame: a decoded frame of any pixel format; more than 8 bits are rounded to 8.
        tags: how its samples are meant.
        size: (width, height) to resize to, px; planes are resized before they are converted,
            which for a small picture is most of the work saved. None keeps the size.

    Returns:
        (height, width, 3) uint8 RGB, contiguous, not shared with `frame`.
    """
    if _holds_rgb(frame):
        rgb = np.array(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
        return rgb if size is None else _resize(rgb, size)
    planar = _as_planar_8bit(frame)
    luma = _plane(planar, 0)
    height, width = luma.shape
    matrix, is_full_range = _effective(tags, height)
    if size is not None:
        luma = _resize(luma, size)
    if len(planar.planes) < 3:
        gray = luma if is_full_range else cv2.LUT(luma, _limited_to_full())
        return np.asarray(cv2.merge([gray, gray, gray]), dtype=np.uint8)
    blue, red = (
        _replicate(_plane(planar, index), height, width)
        if size is None
        else _resize(_plane(planar, index), size)
        for index in (1, 2)
    )
    _, to_rgb_matrix = _matrices(matrix, is_full_range)
    return np.asarray(cv2.transform(cv2.merge([luma, blue, red]), to_rgb_matrix), dtype=np.uint8)


def to_planes(frame: av.VideoFrame, tags: ColorTags, pixel_format: str) -> Planes:
    """Give the planes of a decoded frame in a pixel format, as they are where it is the frame's.

    Args:
        frame: a decoded frame of any pixel format.
        tags: how its samples are meant, and shall be.
        pixel_format: "yuv420p" (even height and width) or "yuv444p".

    Returns:
        Luma, blue and red chroma, each (height, width) uint8 of its own size; not to be written to.
    """
    if frame.format.name.replace("yuvj", "yuv") != pixel_format:
        frame = to_yuv(to_rgb(frame, tags), tags, pixel_format)
    return _plane(frame, 0), _plane(frame, 1), _plane(frame, 2)


def from_planes(planes: Planes, tags: ColorTags, pixel_format: str) -> av.VideoFrame:
    """Make a tagged YUV frame, ready to encode; the inverse of `to_planes`.

    Raises:
        ValueError: a plane has another size than the format wants.
    """
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pixel_format)
    for index, samples in enumerate(planes):
        _plane(frame, index)[:] = samples
    return _tagged(frame, tags)


def to_yuv(rgb: Image, tags: ColorTags, pixel_format: str) -> av.VideoFrame:
    """Convert an RGB frame to a tagged YUV frame, ready to encode.

    Args:
        rgb: (height, width, 3) uint8 RGB.
        tags: how the samples shall be meant.
        pixel_format: "yuv420p" (even height and width) or "yuv444p".

    Returns:
        A new frame of the same size.
    """
    height, width = rgb.shape[:2]
    from_rgb_matrix, _ = _matrices(*_effective(tags, height))
    planes = cv2.split(cv2.transform(rgb, from_rgb_matrix))
    frame = av.VideoFrame(width, height, pixel_format)
    for index, samples in enumerate(planes):
        target = _plane(frame, index)
        if target.shape != samples.shape:
            target_height, target_width = target.shape
            samples = cv2.resize(
                samples, (target_width, target_height), interpolation=cv2.INTER_AREA
            )
        target[:] = samples
    return _tagged(frame, tags)


def _tagged(frame: av.VideoFrame, tags: ColorTags) -> av.VideoFrame:
    frame.colorspace = tags.matrix
    frame.color_range = tags.range
    frame.color_primaries = tags.primaries
    frame.color_trc = tags.transfer
    return frame


def _holds_rgb(frame: av.VideoFrame) -> bool:
    name = frame.format.name
    return frame.format.is_rgb or frame.format.has_palette or name.startswith(("bayer", "mono"))


def _as_planar_8bit(frame: av.VideoFrame) -> av.VideoFrame:
    """Change depth and packing only; matrix, range and chroma grid stay."""
    components = frame.format.components
    if len(components) < 3:
        return frame if frame.format.name == "gray" else frame.reformat(format="gray", threads=1)
    planar = [component.plane for component in components[:3]] == [0, 1, 2]
    if planar and all(component.bits == 8 for component in components):
        return frame
    chroma = (components[1].width < frame.width, components[1].height < frame.height)
    name = {(True, True): "yuv420p", (True, False): "yuv422p"}.get(chroma, "yuv444p")
    return frame.reformat(format=name, threads=1)


def _plane(frame: av.VideoFrame, index: int) -> Image:
    """View the samples of one plane, (height, width), without copying."""
    plane = frame.planes[index]
    rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, abs(plane.line_size))
    return rows[: plane.height, : plane.width]


def _resize(image: Image, size: tuple[int, int]) -> Image:
    """Resize to (width, height), by area when shrinking, so that nothing aliases."""
    (height, width), (new_width, new_height) = image.shape[:2], size
    if width < new_width or height < new_height:
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    steps = [size]
    if width % new_width == 0 and height % new_height:
        # First to the width: OpenCV averages whole numbers of pixels several times as fast.
        steps.insert(0, (new_width, height))
    for step in steps:
        image = np.asarray(cv2.resize(image, step, interpolation=cv2.INTER_AREA), np.uint8)
    return image


def _replicate(chroma: Image, height: int, width: int) -> Image:
    """Repeat chroma samples to (height, width); the last of an odd side covers one pixel."""
    if chroma.shape == (height, width):
        return chroma
    factor_y = -(-height // chroma.shape[0])
    factor_x = -(-width // chroma.shape[1])
    size = (chroma.shape[1] * factor_x, chroma.shape[0] * factor_y)
    repeated = cv2.resize(chroma, size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(repeated, dtype=np.uint8)[:height, :width]


def _effective(tags: ColorTags, height: int) -> tuple[int, bool]:
    matrix = tags.matrix
    if matrix == _MATRIX_UNSPECIFIED:
        matrix = _MATRIX_BT709 if height >= _HD_HEIGHT_PX else 6
    return matrix, tags.range == _RANGE_FULL


@cache
def _limited_to_full() -> Image:
    """Tabulate the full-range value of every limited-range luma sample, (256,) uint8."""
    values = (np.arange(256) - 16.0) * (255.0 / 219.0)
    return np.rint(values).clip(0, 255).astype(np.uint8)


@cache
def _matrices(matrix: int, full_range: bool) -> tuple[npt.NDArray[np.float32], ...]:
    """Build the 3x4 maps RGB -> YUV and YUV -> RGB, on samples in [0, 255]."""
    red, blue = _LUMA_WEIGHTS[matrix]
    luma = np.array([red, 1.0 - red - blue, blue])
    forward = np.stack(
        [
            luma,
            (np.array([0.0, 0.0, 1.0]) - luma) / (2.0 * (1.0 - blue)),
            (np.array([1.0, 0.0, 0.0]) - luma) / (2.0 * (1.0 - red)),
        ]
    )
    offset = np.array([0.0, 128.0, 128.0])
    if not full_range:
        forward *= np.array([[219.0], [224.0], [224.0]]) / 255.0
        offset[0] = 16.0
    backward = np.linalg.inv(forward)
    return (
        np.column_stack([forward, offset]).astype(np.float32),
        np.column_stack([backward, -backward @ offset]).astype(np.float32),
    )
