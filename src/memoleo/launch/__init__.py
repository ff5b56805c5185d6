"""Running a program that knows nothing of memoleo, and its children, with caching on."""
