"""What the sources of a recipe are called."""

from collections.abc import Sequence

from pegbox.recipe.sources import Source


def paths(sources: float | Sequence[Source]) -> tuple[str, ...]:
    """Their paths, in order; nothing where the rows are a share of others."""
    return () if isinstance(sources, float) else tuple(source.path for source in sources)
