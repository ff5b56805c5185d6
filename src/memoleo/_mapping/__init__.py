"""One function over many inputs."""
