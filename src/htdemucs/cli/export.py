"""`htdemucs export`: write a model for other runtimes."""

from pathlib import Path
from typing import Annotated

import typer

from htdemucs.cli.listeners import Terminal
from htdemucs.cli.options import Repo
from htdemucs.cli.shared import messages
from htdemucs.errors import ExportError


def export(
    name: Annotated[
        str, typer.Argument(help="Model: a name, signature, hf://namespace/name, or a path.")
    ],
    target: Annotated[Path, typer.Argument(help="File to write, ending in .onnx.")],
    repo: Repo = None,
) -> None:
    """Write a model as an ONNX file, and check it with ONNX Runtime. Needs htdemucs[export]."""
    if target.suffix != ".onnx":
        raise ExportError(f"the file's name must end in .onnx, not {target.name!r}")
    from htdemucs.export import export_onnx
    from htdemucs.weights import load_model

    with Terminal() as terminal:
        model = load_model(name, repo=repo, device="cpu", on_progress=terminal)
    messages().print(f"exporting {name}; this takes up to a minute", highlight=False, markup=False)
    agreement = export_onnx(model, target)
    messages().print(
        f"wrote {target}; ONNX Runtime agrees with torch to {agreement:.0f} dB",
        highlight=False, markup=False,
    )  # fmt: skip
