"""DeepStab-GAN: learned video stabilization and the pipeline that trains it."""

__version__ = "0.1.0"
