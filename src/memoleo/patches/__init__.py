"""What of other people's libraries is cached, and where they are taken hold of."""

__all__: list[str] = []
