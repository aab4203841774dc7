"""The tests, and how they check the shapes in signatures (`--jaxtyping-packages`, pyproject)."""

from beartype import BeartypeConf, beartype

# An integer is a number too, as type checkers have it.
with_shapes = beartype(conf=BeartypeConf(is_pep484_tower=True))
