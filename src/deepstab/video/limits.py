"""How large a video may be to be taken, for whoever takes them from strangers."""

from __future__ import annotations

from dataclasses import dataclass

from deepstab.errors import VideoError


@dataclass(frozen=True)
class Limits:
    """The most that a video may have; None is no limit.

    Attributes:
        num_bytes: of the file.
        duration_s: s, as declared and, since headers may lie, as decoded.
        num_pixels: of one frame, width times height.
    """

    num_bytes: int | None = None
    duration_s: float | None = None
    num_pixels: int | None = None

    def check_size(self, video: str, num_bytes: int) -> None:
        """Refuse a file, named in words, of too many bytes.

        Raises:
            VideoError: it is too large.
        """
        if self.num_bytes is not None and num_bytes > self.num_bytes:
            raise VideoError(
                f"{video} has {num_bytes} bytes, more than the {self.num_bytes} allowed; "
                "compress or shorten it"
            )

    def check_duration(self, video: str, duration_s: float) -> None:
        """Refuse a video that plays too long.

        Raises:
            VideoError: it is too long.
        """
        if self.duration_s is not None and duration_s > self.duration_s:
            raise VideoError(
                f"{video} lasts {duration_s:.2f} s, more than the {self.duration_s:g} allowed; "
                "shorten it"
            )

    def check_frame(self, video: str, width: int, height: int) -> None:
        """Refuse frames of too many pixels.

        Raises:
            VideoError: they are too large.
        """
        if self.num_pixels is not None and width * height > self.num_pixels:
            raise VideoError(
                f"{video} has frames of {width}x{height}, more than the {self.num_pixels} pixels "
                "allowed; scale it down"
            )


UNLIMITED = Limits()
