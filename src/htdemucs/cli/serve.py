"""`htdemucs serve`: a page to separate songs, and to listen meanwhile."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from htdemucs.cli import options as opt
from htdemucs.cli.shared import say, set_verbosity
from htdemucs.errors import ServerError
from htdemucs.files import user_data

SHORTEST_TOKEN = 8


def serve(
    name: opt.Name = "htdemucs",
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0: all, and everyone needs the token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 8000,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the database, uploads and previews; by default the user's."),
    ] = None,
    library: Annotated[
        Path | None,
        typer.Option(
            help="Folder of tracks and stems, as `htdemucs separate --output` writes it; by "
            "default DATA/separated."
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Such as postgresql://...; by default a file in DATA."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that separate.", min=1, max=64)] = 1,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="HTDEMUCS_TOKEN",
            help="Ask everyone for it; by default elsewhere than on 127.0.0.1 only.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name of this server; needed behind a proxy.")
    ] = None,
    max_upload: Annotated[int, typer.Option(help="MB of one upload.", min=1)] = 2048,
    max_minutes: Annotated[float, typer.Option(help="Minutes of one track.", min=0)] = 180,
    max_jobs: Annotated[int, typer.Option(help="Tracks that may wait.", min=1)] = 100,
    max_previews: Annotated[int, typer.Option(help="MB of all previews together.", min=0)] = 20480,
    keep_free: Annotated[int, typer.Option(help="MB that stay free on the disk.", min=0)] = 1024,
    keep_days: Annotated[
        float | None,
        typer.Option(help="Delete uploaded tracks so many days after they ended.", min=0),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Print details.")] = False,
) -> None:
    """Serve a page to separate songs, and to listen to their stems meanwhile."""
    try:
        from htdemucs.serve import server
        from htdemucs.serve.security import Access
        from htdemucs.serve.settings import Limits, Settings
    except ImportError as error:
        raise ServerError(
            f"the server needs {error.name}; install it with: pip install 'htdemucs[server]'"
        ) from None
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise ServerError(f"--token must have at least {SHORTEST_TOKEN} characters")
    set_verbosity(quiet=False, verbose=verbose)
    limits = Limits(
        upload_bytes=max_upload << 20,
        seconds=60 * max_minutes,
        jobs=max_jobs,
        free_bytes=keep_free << 20,
        preview_bytes=max_previews << 20,
        keep_days=keep_days,
    )
    folder = (data or user_data() / "htdemucs").absolute()
    settings = Settings.of(
        folder, library and library.absolute(), database, model=name, workers=workers, limits=limits
    )
    if token is None and host not in server.LOOPBACK:
        token = server.kept_token(settings)
    listener = server.bound_socket(host, port)
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
    shown = f"[{shown}]" if ":" in shown else shown
    address = f"http://{shown}:{listener.getsockname()[1]}/" + (f"?token={token}" if token else "")

    def ready() -> None:
        say(f"{address}  (Ctrl-C ends the server; what is being separated goes on next time)")
        if open_page:
            webbrowser.open(address)

    server.serve(settings, Access.to(token, allow_host or ()), listener, ready)
