"""The server of `htdemucs serve`: a page and an API to separate songs, and to listen meanwhile."""
