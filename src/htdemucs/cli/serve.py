"""`htdemucs serve`: a web page that separates songs and plays the stems while it works."""

import ipaddress
import webbrowser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from htdemucs.cli import options as opt
from htdemucs.cli.console import print_status, set_verbosity
from htdemucs.errors import ServerError
from htdemucs.formats import LOSSLESS
from htdemucs.fsutil import user_data

MIN_TOKEN_LENGTH = 8  # characters
SERVER, LIMITS = "Server", "Limits"  # headings of the help
EXAMPLES = """
htdemucs serve --open
htdemucs serve --host 0.0.0.0 --library /music/stems
"""


def _networks(
    _ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the addresses as networks."""
    try:
        return tuple(str(ipaddress.ip_network(value, strict=False)) for value in values)
    except ValueError as error:
        raise click.BadParameter(f"{error}; write 10.0.0.5 or 10.0.0.0/24") from None


@opt.command("serve", examples=EXAMPLES)
@opt.flag("--open", "open_page", heading=SERVER, help="Open the page in a browser.")
@opt.option(
    "--host",
    default="127.0.0.1",
    heading=SERVER,
    metavar="ADDRESS",
    help="0.0.0.0: all addresses; clients then need the token.",
)
@opt.option(
    "--port",
    type=int,
    callback=opt.number(0, 65535),
    default=8000,
    heading=SERVER,
    metavar="N",
    help="0: any free port.",
)
@opt.option(
    "--token",
    envvar="HTDEMUCS_TOKEN",
    heading=SERVER,
    metavar="TOKEN",
    help="Require this token; by default one is generated unless HOST is a loopback address.",
)
@opt.option(
    "--allow-host",
    multiple=True,
    heading=SERVER,
    metavar="NAME",
    help="A host name of this server, needed behind a proxy; may be repeated.",
)
@opt.option(
    "--certificate",
    type=click.Path(path_type=Path),
    heading=SERVER,
    metavar="FILE",
    help="Serve https with this certificate, a PEM file that also contains the intermediate ones.",
)
@opt.option(
    "--private-key",
    type=click.Path(path_type=Path),
    heading=SERVER,
    metavar="FILE",
    help="The certificate's key, not encrypted; by default it is in the same file.",
)
@opt.flag(
    "--https",
    heading=SERVER,
    help="Clients use https, through a proxy: browsers send the cookie over https only.",
)
@opt.option(
    "--allow-proxy",
    multiple=True,
    callback=_networks,
    heading=SERVER,
    metavar="ADDRESS",
    help="Address or network of a proxy whose X-Forwarded-For and -Proto headers are used, besides "
    "those of this machine; may be repeated.",
)
@opt.option(
    "--data",
    type=click.Path(path_type=Path),
    heading=SERVER,
    metavar="FOLDER",
    help="For the database, uploads and previews; by default the user's data folder.",
)
@opt.option(
    "--library",
    type=click.Path(path_type=Path),
    heading=SERVER,
    metavar="FOLDER",
    help="Tracks and stems, as `htdemucs separate --output` writes them; by default "
    "DATA/separated.",
)
@opt.option(
    "--database",
    heading=SERVER,
    metavar="URL",
    help="Such as postgresql://...; by default a file in DATA.",
)
@opt.option(
    "--format",
    "stem_format",
    type=opt.choice(*LOSSLESS),
    heading=SERVER,
    help="Store stems in this format; by default in the one chosen on the page, at first wav.",
)
@opt.name_option
@opt.option(
    "--workers",
    type=int,
    callback=opt.number(1, 64),
    default=1,
    heading=opt.QUALITY,
    metavar="N",
    help="Processes that separate, each with a model in memory.",
)
@opt.option(
    "--max-upload",
    type=int,
    callback=opt.number(1),
    default=2048,
    heading=LIMITS,
    metavar="MB",
    help="Size of an upload.",
)
@opt.option(
    "--max-minutes",
    type=float,
    callback=opt.number(0),
    default=180.0,
    heading=LIMITS,
    metavar="MINUTES",
    help="Length of a track.",
)
@opt.option(
    "--max-jobs",
    type=int,
    callback=opt.number(1),
    default=1000,
    heading=LIMITS,
    metavar="N",
    help="Tracks in the queue.",
)
@opt.option(
    "--max-previews",
    type=int,
    callback=opt.number(0),
    default=20480,
    heading=LIMITS,
    metavar="MB",
    help="Size of all previews; the least recently played are deleted first.",
)
@opt.option(
    "--keep-free",
    type=int,
    callback=opt.number(0),
    default=1024,
    heading=LIMITS,
    metavar="MB",
    help="Free space on the disk below which uploads are refused.",
)
@opt.option(
    "--keep-days",
    type=float,
    callback=opt.number(0),
    heading=LIMITS,
    metavar="DAYS",
    help="Delete uploaded tracks this long after they are finished; by default never.",
)
@opt.flag("-v", "--verbose", help="Print details.")
def serve(
    *,
    name: str,
    host: str,
    port: int,
    data: Path | None,
    library: Path | None,
    database: str | None,
    workers: int,
    token: str | None,
    allow_host: tuple[str, ...],
    certificate: Path | None,
    private_key: Path | None,
    https: bool,
    stem_format: str | None,
    allow_proxy: tuple[str, ...],
    max_upload: int,
    max_minutes: float,
    max_jobs: int,
    max_previews: int,
    keep_free: int,
    keep_days: float | None,
    open_page: bool,
    verbose: bool,
) -> None:
    """Serve a web page that separates songs and plays the stems while it works."""
    try:
        from htdemucs.serve import server
        from htdemucs.serve.auth import Access
        from htdemucs.serve.settings import Limits, Settings
        from htdemucs.weights.registry import check_name
    except ImportError as error:
        raise ServerError(
            f"the server needs {error.name}; in the repository, run: pip install '.[server]'"
        ) from None
    if token is not None and len(token) < MIN_TOKEN_LENGTH:
        raise click.UsageError(
            "the token (--token or HTDEMUCS_TOKEN) must have at least "
            f"{MIN_TOKEN_LENGTH} characters"
        )
    if token is not None and (not token.isascii() or token != token.strip()):
        raise click.UsageError("the token must have ASCII characters only, and no spaces around")
    if private_key and not certificate:
        raise click.UsageError("--private-key needs --certificate")
    if certificate:
        server.check_certificate(certificate, private_key)
    check_name(name)
    set_verbosity(verbose=verbose)
    limits = Limits(
        upload_bytes=max_upload << 20,
        seconds=60 * max_minutes,
        jobs=max_jobs,
        free_bytes=keep_free << 20,
        preview_bytes=max_previews << 20,
        keep_days=keep_days,
    )
    folder = (data or user_data() / "htdemucs").absolute()
    settings = Settings.in_folder(
        folder,
        library and library.absolute(),
        database,
        model=name,
        workers=workers,
        format=stem_format,
        limits=limits,
    )
    if token is None and host not in server.LOOPBACK:
        token = server.stored_secret(settings, "token")
    others: dict[str, Any] = {"https": https}
    if token is not None:
        others["cookie_key"] = server.stored_secret(settings, "cookie-key").encode()
    listener = server.listening_socket(host, port)
    host_name = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
    host_name = f"[{host_name}]" if ":" in host_name else host_name
    query = f"?token={quote(token, '')}" if token else ""
    scheme = "https" if certificate else "http"
    address = f"{scheme}://{host_name}:{listener.getsockname()[1]}/{query}"

    def on_ready() -> None:
        print_status(f"{address}  (Ctrl-C stops the server; the next start resumes its work)")
        if open_page:
            webbrowser.open(address)

    access = Access.to(token, allow_host, **others)
    tls = {"ssl_certfile": certificate, "ssl_keyfile": private_key}
    server.serve(settings, access, listener, on_ready, forwarded_allow_ips=allow_proxy, **tls)
