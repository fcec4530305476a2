"""`htdemucs models`, `convert` and `export`: list models, and write them in other formats."""

import json
from pathlib import Path
from textwrap import fill
from typing import Any

import click

from htdemucs.cli import options as opt
from htdemucs.cli.console import print_status, print_table
from htdemucs.cli.progress import ConsoleReporter
from htdemucs.errors import CheckpointError, ExportError
from htdemucs.settings import ATTENTION_CHUNK

# Of files that `convert` does not write. Any other name, such as model-1.2, may be a folder's.
_OTHER_SUFFIXES = (
    *(".bin", ".ckpt", ".gguf", ".h5", ".json", ".npz", ".onnx", ".pickle", ".pkl", ".pt"),
    *(".pth", ".safetensor", ".tar", ".tflite", ".torchscript", ".yml", ".zip"),
)


@opt.command("models", examples="htdemucs models\nhtdemucs models --json")
@opt.flag("--json", "as_json", help="Print a JSON list.")
def models(as_json: bool) -> None:
    """List the named models: sources, size, licence, and whether they are downloaded."""
    print_models(as_json)


def print_models(as_json: bool) -> None:
    """Print a table, or a JSON list, of the models with names."""
    from htdemucs.weights.registry import named_models

    rows = named_models()
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    for header in ("here", "licence", "about"):
        table.add_column(header)
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['bytes'] / 1e6:.0f} MB" if row["bytes"] else "",
            "yes" if row["cached"] else "no",
            row["license"] or "not stated",
            row["about"],
        )
    print_table(table)
    notes = {row["license_note"]: row["license_read"] for row in rows if row["license_note"]}
    for note, read in notes.items():
        print(fill(f"Licences, checked on {read}: {note}", 78))
    print("With --json also the stems, and the signatures of the networks in each model.")


@opt.command(
    "convert",
    examples="""
    htdemucs convert htdemucs htdemucs-folder
    htdemucs convert recipes/run/model repo/ours.th
    htdemucs convert htdemucs_ft repo/fine.yaml
    """,
)
@click.argument("model")
@click.argument("target", type=click.Path(path_type=Path))
@opt.repo_option
@opt.config_option
def convert(model: str, target: Path, repo: Path | None, config: Path | None) -> None:
    """Convert a model to another format.

    MODEL is a name, a signature, hf://namespace/name or a path. TARGET is a folder for config.json
    and model.safetensors, or a file in the format of the demucs package: for a single network a
    .th or .safetensors, for any model a .yaml, next to which each network becomes a .th.
    """
    from htdemucs.model import Bag
    from htdemucs.weights import demucs_format, load_model, save_model

    suffix = "" if target.is_dir() else target.suffix.lower()
    if suffix in _OTHER_SUFFIXES:
        other = "; ONNX files are written by: htdemucs export" if suffix == ".onnx" else ""
        raise click.UsageError(
            "TARGET must be a folder or end in .th, .safetensors or .yaml, not in "
            f"{target.suffix}{other}"
        )
    if suffix == ".th" and "-" in target.stem:
        raise click.UsageError(
            f"demucs takes what follows the hyphen in {target.name} for a checksum; use "
            f"{target.name.replace('-', '_')}"
        )
    loaded = load_model(model, repo=repo, config=config, device="cpu")
    if suffix == ".yaml":
        demucs_format.write_bag(loaded, target)
    elif suffix in (".safetensors", ".th"):
        if isinstance(loaded, Bag):
            raise CheckpointError(
                "a bag cannot be a single file; specify a folder, or a .yaml for demucs, as TARGET"
            )
        demucs_format.write(loaded, target)
    else:
        save_model(loaded, target)
    print_status(f"wrote {target}")


@opt.command(
    "export",
    examples="""
    htdemucs export mini mini.onnx
    htdemucs export htdemucs htdemucs.onnx --with-stft --static-batch 1 --half
    """,
)
@click.argument("model")
@click.argument("target", type=click.Path(path_type=Path))
@opt.repo_option
@opt.config_option
@opt.flag(
    "--with-stft",
    help="Include the STFT and its inverse. The file then has one input, mix, and one output, "
    "stems.",
)
@opt.flag("--half", help="Store weights in half precision: the file is half as large.")
@opt.option(
    "--static-batch",
    type=int,
    callback=opt.number(1, 1024),
    metavar="N",
    help="Fix the batch size, so that a GPU computes every operation. By default it is free.",
)
@opt.option(
    "--segment",
    type=float,
    metavar="SECONDS",
    help="Length of a segment; by default the model's own, which is also the longest.",
)
@opt.option(
    "--attention-chunk",
    default=ATTENTION_CHUNK,
    callback=opt.number(1),
    metavar="MB",
    help="MB of attention scores that are computed at a time. By default WebGPU binds tensors of "
    "at most 134 MB.",
)
def export(
    model: str, target: Path, repo: Path | None, config: Path | None, **settings: Any
) -> None:
    """Write a model as an ONNX file, and check it with ONNX Runtime. Needs the extra export.

    MODEL is a name, a signature, hf://namespace/name or a path; TARGET is a file ending in .onnx.
    """
    if target.suffix != ".onnx":
        raise ExportError(f"the file's name must end in .onnx, not {target.name!r}")
    from htdemucs.export import export_onnx
    from htdemucs.weights import load_model

    with ConsoleReporter() as reporter:
        loaded = load_model(model, repo=repo, config=config, device="cpu", on_progress=reporter)
    print_status(f"exporting {model}; this takes up to a minute")
    agreement = export_onnx(loaded, target, **settings)
    print_status(f"wrote {target}; ONNX Runtime agrees with PyTorch to {agreement:.0f} dB")
