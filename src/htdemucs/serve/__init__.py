"""The server of `htdemucs serve`: a web page and an HTTP API to separate tracks and play the stems.

The server process answers requests; worker processes separate. Both share a database, which is also
the queue, and the folders for uploads, previews and stems. This package may import every package
except `cli` and `compat`.

Start with `app.py` (the application and its routes), then `jobs.py` (the queue) and `worker.py`. To
add a route, add a function to the `*_routes.py` of its subject. To add a column, add it to
`db.py`, and to `to_dict` in `tracks.py` if clients need it.
"""
