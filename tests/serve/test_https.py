"""HTTPS with a certificate of the server's own."""

import ssl
import threading
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import uvicorn

from htdemucs.errors import ServerError
from htdemucs.serve.server import check_certificate, listening_socket, make_config

pytest.importorskip("cryptography", reason="makes a certificate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of localhost and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    pem, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked = serialization.BestAvailableEncryption(b"secret")
    (folder / "certificate.pem").write_bytes(signed.public_bytes(pem))
    for name, encryption in (("key", serialization.NoEncryption()), ("locked", locked)):
        (folder / f"{name}.pem").write_bytes(key.private_bytes(pem, plain, encryption))
    return folder


def test_the_server_speaks_https_with_a_certificate(certificate):
    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["scheme"].encode()})

    files = certificate / "certificate.pem", certificate / "key.pem"
    check_certificate(*files)
    config = make_config(app, ssl_certfile=files[0], ssl_keyfile=files[1])
    config.lifespan = "off"
    server, listener = uvicorn.Server(config), listening_socket("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    trusted = ssl.create_default_context(cafile=files[0])
    url = f"https://localhost:{listener.getsockname()[1]}/"
    try:
        with httpx.Client(verify=trusted, trust_env=False, timeout=60) as client:
            assert client.get(url).text == "https"
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("missing.pem", None), "cannot read .*missing.pem: No such file"),
        (("certificate.pem", None), "does not contain the unencrypted key"),
        (("certificate.pem", "locked.pem"), "does not contain the unencrypted key"),
        (("certificate.pem", "certificate.pem"), "does not contain the unencrypted key"),
    ],
)
def test_files_that_do_not_fit_are_refused(certificate, names, message):
    with pytest.raises(ServerError, match=message):
        check_certificate(*(name and certificate / name for name in names))
