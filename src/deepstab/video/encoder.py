"""H.264 that plays in a browser."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import cv2

from deepstab.image import Image
from deepstab.video import color

# OpenCV's CPU_AVX_512F, which its Python module does not name.
_AVX_512F = 13


@dataclass(frozen=True)
class EncoderSettings:
    """How pictures are compressed.

    Attributes:
        crf: constant rate factor of x264, 0 (lossless) to 51 (worst).
        preset: speed of x264, "ultrafast" to "veryslow".
        num_threads: threads of x264; the bytes written depend on it.
    """

    crf: int
    preset: str
    num_threads: int


@dataclass(frozen=True)
class StreamFormat:
    """What a stream of pictures is.

    Attributes:
        width: px.
        height: px.
        time_base: unit of the timestamps, s.
        frame_rate: average, frames/s.
        tags: how the samples shall be meant.
    """

    width: int
    height: int
    time_base: Fraction
    frame_rate: Fraction
    tags: color.ColorTags


class H264Encoder:
    """One H.264 stream of an open container.

    Even sizes become yuv420p, which every browser plays. H.264 cannot state an odd size in 4:2:0
    (even its cropping counts in pairs of pixels), so an odd size becomes yuv444p: the size is
    kept, and players without High 4:4:4 Predictive (Safari, hardware) cannot show it.

    Attributes:
        stream: the stream it added to the container.
    """

    def __init__(
        self,
        container: av.container.OutputContainer,
        stream_format: StreamFormat,
        settings: EncoderSettings,
    ) -> None:
        """Add the stream to a container, whose header must not be written yet."""
        width, height, tags = stream_format.width, stream_format.height, stream_format.tags
        self._tags = tags
        self._size = (height, width)
        self.stream = container.add_stream(
            "libx264", rate=stream_format.frame_rate, time_base=stream_format.time_base
        )
        codec = self.stream.codec_context
        codec.width = width
        codec.height = height
        codec.pix_fmt = pixel_format_for(width, height)
        codec.color_range = tags.range
        codec.colorspace = tags.matrix
        codec.color_primaries = tags.primaries
        codec.color_trc = tags.transfer
        codec.thread_count = settings.num_threads
        # Slices, PyAV's default, would cost quality.
        codec.thread_type = av.codec.context.ThreadType.FRAME
        codec.flags |= av.codec.context.Flags.frame_duration
        codec.options = {"crf": str(settings.crf), "preset": settings.preset} | _instructions()

    def encode(self, rgb: Image, *, pts: int, duration: int) -> list[av.Packet[av.VideoStream]]:
        """Compress one frame.

        Args:
            rgb: (height, width, 3) uint8 RGB.
            pts: presentation time in units of the time base, above the last one.
            duration: in the same units.

        Returns:
            The packets that are ready; x264 holds some frames back.

        Raises:
            ValueError: the frame has another size or type.
        """
        if rgb.shape != (*self._size, 3) or rgb.dtype != "uint8":
            raise ValueError(
                f"a frame of {self._size[1]}x{self._size[0]} RGB uint8 is needed, "
                f"got shape {rgb.shape} of {rgb.dtype}; yield frames of the input's size"
            )
        frame = color.to_yuv(rgb, self._tags, pixel_format_for(self._size[1], self._size[0]))
        return self._encode(frame, pts=pts, duration=duration)

    def encode_planes(
        self, planes: color.Planes, *, pts: int, duration: int
    ) -> list[av.Packet[av.VideoStream]]:
        """Compress one frame given as planes of the stream's pixel format; else as `encode`.

        Raises:
            ValueError: the frame has another size.
        """
        if planes[0].shape != self._size:
            raise ValueError(
                f"planes of {self._size[1]}x{self._size[0]} are needed, got {planes[0].shape}; "
                "yield frames of the input's size"
            )
        frame = color.from_planes(planes, self._tags, pixel_format_for(*self._size[::-1]))
        return self._encode(frame, pts=pts, duration=duration)

    def _encode(
        self, frame: av.VideoFrame, *, pts: int, duration: int
    ) -> list[av.Packet[av.VideoStream]]:
        frame.pts = pts
        frame.duration = duration
        frame.time_base = self.stream.codec_context.time_base
        return self.stream.encode(frame)

    def flush(self) -> list[av.Packet[av.VideoStream]]:
        """Return the packets x264 still holds."""
        return self.stream.encode(None)


def pixel_format_for(width: int, height: int) -> str:
    """Return the pixel format in which H.264 keeps a size in px."""
    return "yuv444p" if width % 2 or height % 2 else "yuv420p"


def _instructions() -> dict[str, str]:
    """Keep x264 from AVX-512, which gave other pixels from run to run on a busy virtual machine."""
    if not cv2.checkHardwareSupport(_AVX_512F):
        return {}
    return {"x264-params": "asm=MMX2,SSE2Fast,SSSE3,SSE4.2,AVX,FMA3,BMI2,AVX2"}
