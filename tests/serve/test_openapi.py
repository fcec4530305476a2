"""Responses conform to the OpenAPI document, whatever the request is."""

from hypothesis import HealthCheck, Phase, given, settings

from htdemucs.serve.app import create_app
from htdemucs.serve.auth import Access

LENT = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_every_response_conforms_to_the_openapi_document(state, write_song, tmp_path, client):
    import schemathesis  # here, because it takes seconds, and only this test needs it
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks as openapi

    checks = [
        not_a_server_error,
        openapi.status_code_conformance,
        openapi.content_type_conformance,
        openapi.response_schema_conformance,
    ]
    client.upload(write_song(tmp_path / "song.flac"))
    app = create_app(state, Access.to(None, ["testserver"]))
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    for found in schema.exclude(path="/api/events").get_all_operations():  # events never end
        operation = found.ok()

        @LENT
        @given(case=operation.as_strategy())
        def ask(case):
            case.call_and_validate(checks=checks)

        ask()
