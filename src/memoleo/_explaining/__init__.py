"""Why a call is answered from the cache, or is not."""
