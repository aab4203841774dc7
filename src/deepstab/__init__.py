"""DeepStab-GAN: learned video stabilization and the pipeline that trains it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepstab.api import score, stabilize

__version__ = "0.1.0"
__all__ = ["__version__", "score", "stabilize"]


def __getattr__(name: str) -> Any:
    """Import what is offered when it is asked for."""
    if name in __all__:
        from deepstab import api

        return getattr(api, name)
    raise AttributeError(f"module 'deepstab' has no attribute {name!r}")
