"""`htdemucs trace`: show the size of the data at every stage."""

import json
from typing import Literal

from htdemucs.cli import options as opt
from htdemucs.cli.console import print_table


@opt.command(
    "trace",
    examples="""
    htdemucs trace --samples 258602 --language zh
    htdemucs trace -n htdemucs_6s --json
    """,
)
@opt.name_option
@opt.option(
    "--samples", type=int, metavar="N", help="Length of the mixture; by default one segment."
)
@opt.option(
    "--language", type=opt.choice("en", "zh"), default="en", help="Language of the stage names."
)
@opt.flag("--json", "as_json", help="Print a JSON list.")
def trace(name: str, samples: int | None, language: Literal["en", "zh"], as_json: bool) -> None:
    """Show the shape of the data after every stage of the network. Needs no weights."""
    from htdemucs.model.trace import trace as trace_stages
    from htdemucs.weights.load import known_config

    config = known_config(name)
    length = config.segment_length if samples is None else samples
    stages = trace_stages(config, length, language)
    if as_json:
        rows = [{"stage": stage.label, "shape": list(stage.shape)} for stage in stages]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    from rich.table import Table

    table = Table()
    for header in ("#", "stage", "shape", "parameters", "GFLOP"):
        table.add_column(header, justify="left" if header in ("stage", "shape") else "right")
    for number, stage in enumerate(stages, 1):
        table.add_row(
            str(number),
            stage.label,
            ", ".join(map(str, stage.shape)),
            f"{stage.parameters:,}" if stage.parameters else "",
            f"{stage.flop / 1e9:.2f}" if stage.flop else "",
        )
    table.add_section()
    parameters, flop = sum(s.parameters for s in stages), sum(s.flop for s in stages)
    table.add_row("", "", "", f"{parameters:,}", f"{flop / 1e9:.2f}")
    print_table(table, f"{name}, {length} samples at {config.sample_rate} Hz")
