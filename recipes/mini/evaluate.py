"""Score the shipped model and write its card: `python -m recipes.mini.evaluate --data DATA`.

Two sets, always together: the held-out synthetic one, and recordings with true stems, where a
folder of them is named with `--real`.
"""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from htdemucs import HTDemucsError, __version__, load_model
from htdemucs.evaluation import EvaluationOptions, evaluate, to_document
from htdemucs.fsutil import atomic_write
from htdemucs.weights.registry import BUNDLED_MODEL, bundled_folder

HERE = Path(__file__).parent
SCORES = HERE / "scores.json"
STEMS = ("drums", "bass", "other", "vocals")
SETS = {"heldout": "held-out synthetic songs", "real": "real songs"}


def main(arguments: list[str] | None = None) -> int:
    """Evaluate the sets that are named and write the card. Return 0 when it is written."""
    parser = argparse.ArgumentParser(prog="python -m recipes.mini.evaluate", description=__doc__)
    parser.add_argument("--data", type=Path, help="the data set that recipes.mini.build made")
    parser.add_argument("--real", type=Path, help="folder of recordings, TRACK/STEM.wav or .flac")
    parser.add_argument("--model", default=BUNDLED_MODEL)
    options = parser.parse_args(arguments)
    folders = {"heldout": options.data and options.data / "heldout", "real": options.real}
    try:
        scores = {name: evaluate_set(path, options.model) for name, path in folders.items() if path}
    except HTDemucsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with atomic_write(SCORES) as partial:
        partial.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    card = bundled_folder() / "README.md"
    with atomic_write(card) as partial:
        partial.write_text(model_card(scores), encoding="utf-8")
    print(table(scores))
    print(f"written: {card}, {SCORES}")
    return 0


def evaluate_set(data: Path, model: str) -> dict[str, Any]:
    """Evaluate the model on one set and return the scores to keep."""
    document = to_document(evaluate(data, EvaluationOptions(model=model, seed=0)))
    keys = ("tracks", "mean", "mean_interval", "median", "mixture", "mixture_tracks", "oracle")
    kept = {key: document[key] for key in (*keys, "options", "versions")}
    return kept | {"data": {k: document["data"][k] for k in ("tracks", "duration", "sha256")}}


def table(scores: dict[str, Any]) -> str:
    """Return a Markdown table: nsdr of model, mixture and ideal mask, by set and stem."""
    lines = [
        "| nsdr, dB | " + " | ".join(STEMS) + " | mean |",
        "|---|" + "---|" * (len(STEMS) + 1),
    ]
    for name, document in scores.items():
        rows = (("mini", "mean"), ("the mixture itself", "mixture"), ("ideal ratio mask", "oracle"))
        for label, key in rows:
            lines.append(f"| {SETS[name]}: {label} | {_cells(document[key])} |")
    for name, tracks in scores.get("real", {}).get("tracks", {}).items():
        lines.append(f"| {name}: mini | {_cells(tracks)} |")
        lines.append(f"| {name}: mixture | {_cells(scores['real']['mixture_tracks'][name])} |")
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> str:
    values = [row[stem]["nsdr"] for stem in STEMS]
    return " | ".join(f"{value:.2f}" for value in [*values, sum(values) / len(values)])


def model_card(scores: dict[str, Any]) -> str:
    """Return the model card's text."""
    model = load_model(BUNDLED_MODEL, device="cpu")
    parameters = sum(p.numel() for p in model.parameters())
    template = (HERE / "card.md").read_text(encoding="utf-8")
    held_out = scores.get("heldout", {}).get("data", {})
    log = (HERE / "log.jsonl").read_text(encoding="utf-8").splitlines()
    steps = int(max((json.loads(line)["best"].get("step", 0) for line in log), default=0))
    return template.format(
        parameters=f"{parameters / 1e6:.2f}",
        size=f"{(bundled_folder() / 'model.safetensors').stat().st_size / 1e6:.1f}",
        segment=f"{float(model.segment):g}",
        scores=table(scores),
        steps=steps,
        heard=steps * 2 * float(model.segment) / 3600,
        held_out_tracks=held_out.get("tracks", 0),
        version=__version__,
        date=datetime.now(UTC).date().isoformat(),
    )


if __name__ == "__main__":
    sys.exit(main())
