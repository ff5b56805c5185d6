"""What differs between Linux, macOS and Windows, and what Python itself leaves open.

Nothing else in memoleo asks which system it runs on.
"""
