"""The page of a trace: one HTML file with the figure, every stage, and the data of a song."""

import inspect
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from htdemucs.audio import AudioEncoding, AudioWriter
from htdemucs.images import data_uri
from htdemucs.model import Network
from htdemucs.tracing.document import Trace, reach_text, statistics_cells, step_text
from htdemucs.tracing.figure import figure
from htdemucs.tracing.song import SongTrace, waveform_picture
from htdemucs.tracing.stages import Resolution, Stage
from htdemucs.tracing.texts import (
    AXES,
    HEADERS,
    LANGUAGES,
    MEANINGS,
    PAGE,
    Language,
    Words,
    words,
)

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #57606a; --paper: #fff; --panel: #f6f8fa;
  --edge: #d0d7de; --accent: #0b61c4 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #a5b0bb; --paper: #0d1117;
  --panel: #161b22; --edge: #30363d; --accent: #6cb0f5 } }
* { box-sizing: border-box }
body { margin: 0; font: 15px/1.5 system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei",
  sans-serif; color: var(--ink); background: var(--paper) }
header { padding: .7rem 1.5rem; border-bottom: 1px solid var(--edge); display: flex; gap: 1rem;
  align-items: start; justify-content: space-between; position: sticky; top: 0; z-index: 1;
  background: var(--paper) }
h1 { font-size: 1.15rem; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1.05rem; margin: 0 0 .5rem }
p { margin: .4rem 0 } a { color: var(--accent) } .soft { color: var(--soft) }
button { font: inherit; padding: .3rem .8rem; border: 1px solid var(--edge); border-radius: 6px;
  background: var(--panel); color: inherit; cursor: pointer; white-space: nowrap }
#figure { overflow-x: auto; padding: 1rem; border-bottom: 1px solid var(--edge) }
#figure svg { display: block; width: 100%; height: auto; min-width: 800px; max-width: 1280px;
  margin: 0 auto }
#stages { padding: 1rem 1.5rem; max-width: 1000px; margin: 0 auto }
article { border: 1px solid var(--edge); border-left: 4px solid var(--edge); border-radius: 8px;
  padding: .8rem 1rem; margin: 0 0 1rem; scroll-margin-top: 7rem }
article.spectral { border-left-color: #2f6fb5 } article.time { border-left-color: #b5651d }
article:target { outline: 3px solid var(--accent) }
#stages .shape { font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem }
th, td { text-align: left; padding: .15rem .8rem .15rem 0; vertical-align: top }
th { color: var(--soft); font-weight: 400; white-space: nowrap } .scroll { overflow-x: auto }
img { display: block; width: 100%; height: auto; image-rendering: pixelated; margin: .4rem 0;
  border-radius: 4px; background: #000004; max-height: 220px }
img.wave { height: 56px } audio { width: 100%; height: 36px }
figure { margin: .6rem 0 } figcaption { color: var(--soft); font-size: .9rem }
pre { background: var(--panel); padding: .8rem; overflow-x: auto; font-size: .8rem;
  line-height: 1.4 }
summary { cursor: pointer; color: var(--accent); margin: .4rem 0 }
:root[data-lang=en] [lang=zh], :root[data-lang=zh] [lang=en] { display: none }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0 1rem }
@media (min-width: 1800px) { main { display: grid; grid-template-columns: 1fr 1fr }
  #figure { position: sticky; top: 6rem; align-self: start; height: calc(100vh - 6rem);
    overflow: auto; border: 0 } }
@media (max-width: 700px) { #stages, header { padding: 1rem } header { position: static }
  article { scroll-margin-top: 1rem } .pair { grid-template-columns: 1fr } }
@media print { #figure { overflow: visible } #figure svg { min-width: 0 }
  header { position: static } button, .back, audio, .hint { display: none }
  article { break-inside: avoid } article:target { outline: none }
  :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --panel: #fff } }
"""

SCRIPT = """
document.querySelector("#language").addEventListener("click", () => {
  const root = document.documentElement;
  root.dataset.lang = root.lang = root.dataset.lang === "en" ? "zh" : "en";
});
document.addEventListener("play", ({ target }) => {
  for (const other of document.querySelectorAll("audio")) if (other !== target) other.pause();
}, true);
"""


def to_html(trace: Trace, network: Network, language: Language = "en") -> str:
    """Return the page, which contains both languages and no outside resources.

    Args:
        trace: the stages, with or without a song.
        network: whose code is shown.
        language: the one that is shown first.
    """
    titles = _spans(*(trace.title(one) for one in LANGUAGES))
    notes = "".join(
        f'<p class="soft">{_spans(*pair)}</p>'
        for pair in zip(*(trace.notes(one) for one in LANGUAGES), strict=True)
    )
    figures = "".join(
        f'<div lang="{one}">{figure(trace.stages, trace.title(one), one, links=True)}</div>'
        for one in LANGUAGES
    )
    articles = "\n".join(_article(trace, network, stage) for stage in trace.to_depth(1))
    song = "" if trace.song is None else _song(trace.song, network)
    return f"""<!doctype html>
<html lang="{language}" data-lang="{language}">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(trace.title(language))}</title>
<style>{STYLE}</style>
<header><div><h1>{titles}</h1>{notes}<p class="soft hint">{_both(PAGE, "hint")}</p></div>
<button id="language" type="button">{_spans("中文", "English")}</button></header>
<main>
<section id="figure">{figures}</section>
<section id="stages">
{articles}
{song}
</section>
</main>
<script>{SCRIPT}</script>
</html>
"""


def _article(trace: Trace, network: Network, stage: Stage) -> str:
    """Return everything about one stage of depth 1."""
    song = trace.song
    parts = [s for s in trace.stages if s.number.startswith(f"{stage.number}.")]
    picture = song and song.pictures.get(stage.number)
    blocks = [
        f'<article id="stage-{stage.number}" class="{stage.branch}" tabindex="-1">',
        f"<h2>{stage.number}  {_spans(*(stage.label(one) for one in LANGUAGES))}: "
        f'<span class="shape">{stage.shape_text}</span></h2>',
    ]
    if picture:
        kind = ' class="wave"' if stage.sizes[-1].axis == "sample" else ""
        key, *values = _caption(stage, trace.song)
        alt = escape(f"{stage.label('en')}: {words(PAGE, key, 'en').format(*values)}")
        blocks.append(f'<figure><img{kind} src="{picture}" alt="{alt}">')
        blocks.append(f"<figcaption>{_both(PAGE, key, *values)}</figcaption></figure>")
    blocks += [_sizes(stage), _facts(stage)]
    if song is not None:
        blocks.append(_statistics(song, stage))
    if parts:
        blocks.append(_parts(parts, song))
    blocks += [
        _code(network, stage),
        f'<p class="back"><a href="#figure">{_both(PAGE, "back")}</a>',
    ]
    return "\n".join([*blocks, "</article>"])


def _caption(stage: Stage, song: SongTrace | None) -> tuple[str, object, object, object]:
    """Return the key of the words about a picture, and their values: seconds, hertz, channel."""
    axes = {size.axis: size.value for size in stage.sizes}
    resolution = stage.resolution or Resolution(0.0)
    seconds = f"{stage.shape[-1] * resolution.seconds:.2f} s"
    hertz = f"{axes.get('bin', 0) * (resolution.hertz or 0):.0f} Hz"
    channel = None if song is None else song.channel
    kind = "spectral" if "bin" in axes else "time"
    if "sample" in axes:
        return "wave_picture", seconds, hertz, channel
    return f"{kind}_{'picture' if channel is None else 'channel'}", seconds, hertz, channel


def _sizes(stage: Stage) -> str:
    """Return the table of the axes and how each comes about."""
    rows = []
    for size in stage.sizes:
        formula = f"= {size.formula}" if size.formula else ""
        meaning = _both(MEANINGS, size.meaning) if size.meaning else ""
        axis = _both(AXES, size.axis)
        rows.append(
            f"<tr><th>{axis}</th><td>{size.value}</td><td>{formula}</td><td>{meaning}</td></tr>"
        )
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def _facts(stage: Stage) -> str:
    facts = []
    if stage.operation:
        facts.append(f"<p>{escape(stage.operation)}</p>")
    step, reach = (
        step_text(stage.resolution),
        [reach_text(stage.resolution, o) for o in LANGUAGES],
    )
    facts.append(
        f"<p>{_both(HEADERS, 'step')}: {step}; {_both(HEADERS, 'reach')}: {_spans(*reach)}</p>"
    )
    if stage.parameters or stage.flop:
        facts.append(
            f"<p>{stage.parameters:,} {_both(HEADERS, 'parameters')}, "
            f"{stage.flop / 1e9:.2f} GFLOP</p>"
        )
    if stage.skip:
        facts.append(f'<p>{_both(PAGE, "skip")} <a href="#stage-{stage.skip}">{stage.skip}</a></p>')
    return "".join(facts)


def _statistics(song: SongTrace, stage: Stage) -> str:
    cells = statistics_cells(song.statistics[stage.number], stage.seconds)
    head = "".join(f"<th>{_both(HEADERS, key)}</th>" for key, cell in cells.items() if cell)
    row = "".join(f"<td>{cell}</td>" for cell in cells.values() if cell)
    return f'<div class="scroll"><table><tr>{head}</tr><tr>{row}</tr></table></div>'


def _parts(parts: Sequence[Stage], song: SongTrace | None) -> str:
    """Return the table of a stage's parts."""
    keys = ["number", "stage", "shape", "operation", "parameters", "gflop"]
    if song is not None:
        keys += ["std", "low", "high", "closed"]
    rows = ["".join(f"<th>{_both(HEADERS, key)}</th>" for key in keys)]
    for part in parts:
        cells = [
            part.number,
            _spans(*(part.label(one) for one in LANGUAGES)),
            f'<span class="shape">{part.shape_text}</span>',
            escape(part.operation),
            f"{part.parameters:,}" if part.parameters else "",
            f"{part.flop / 1e9:.2f}" if part.flop else "",
        ]
        if song is not None:
            figures = statistics_cells(song.statistics[part.number], part.seconds)
            cells += [figures[key] for key in ("std", "low", "high", "closed")]
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f"<details><summary>{_both(PAGE, 'parts')}</summary>"
        f'<div class="scroll"><table>{body}</table></div></details>'
    )


def _code(network: Network, stage: Stage) -> str:
    """Return the source of the class that computes a stage."""
    module: nn.Module = network.get_submodule(stage.module) if stage.module else network
    kind: Any = type(module)
    if not kind.__module__.startswith("htdemucs.model."):
        return ""
    if not stage.module:
        kind = next((base for base in kind.__mro__ if "core" in vars(base)), kind)
    source, first = inspect.getsourcelines(kind)
    file = f"{kind.__module__.replace('.', '/')}.py"
    path = f"<code>{stage.module}</code>, " if stage.module else ""
    return (
        f"<details><summary>{_both(PAGE, 'code')}: {path}{kind.__name__}, {file}, {first}–"
        f"{first + len(source) - 1}</summary><pre>{escape(''.join(source))}</pre></details>"
    )


def _song(song: SongTrace, network: Network) -> str:
    """Return the segment as it goes in, the stems as they come out, and the attention."""
    rate = network.sample_rate
    blocks = [
        f'<article class="both"><h2>{_both(PAGE, "mixture")}</h2>',
        _sound(song.mixture, rate),
        f'<img class="wave" src="{waveform_picture(song.mixture.mean(0))}" alt="waveform">',
        f'<figure><img src="{song.spectrograms[""]}" alt="spectrogram of the mixture"><figcaption>'
        f"{_both(PAGE, 'spectrogram')}</figcaption></figure></article>",
    ]
    for name, stem in song.stems.items():
        blocks.append(
            f'<article class="both"><h2>{escape(name)}</h2>{_sound(stem, rate)}'
            f'<img class="wave" src="{waveform_picture(stem.mean(0))}" alt="waveform">'
            f'<div class="pair"><figure><img src="{song.spectrograms[name]}" alt="spectrogram">'
            f"<figcaption>{_both(PAGE, 'spectrogram')}</figcaption></figure>"
            f'<figure><img src="{song.masks[name]}" alt="mask"><figcaption>'
            f"{_both(PAGE, 'mask')}</figcaption></figure></div></article>"
        )
    for maps in song.attention:
        key = f"{maps.branch}_attention"
        blocks.append(
            f'<article class="{maps.branch}"><h2>{_both(PAGE, key, maps.layer)}</h2>'
            f'<div class="pair"><figure><img src="{maps.moments}" alt="attention by moments">'
            "<figcaption>"
            f"{_both(PAGE, key + '_moments')}</figcaption></figure>"
            f'<figure><img src="{maps.bins}" alt="attention by frequency"><figcaption>'
            f"{_both(PAGE, key + '_bins')}</figcaption></figure></div></article>"
        )
    return "\n".join(blocks)


def _sound(waveform: Tensor, rate: int) -> str:
    """Return a player of a waveform (C, L)."""
    with tempfile.TemporaryDirectory(prefix="htdemucs-") as folder:
        path = Path(folder) / "sound.mp3"
        encoding = AudioEncoding("mp3", bitrate=192)
        with AudioWriter(path, rate, waveform.shape[0], encoding) as writer:
            writer.write(waveform)
        uri = data_uri(path.read_bytes(), "audio/mpeg")
    return f'<audio controls preload="none" src="{uri}"></audio>'


def _both(table: Words, key: str, *values: object) -> str:
    """Return a text in both languages; the style hides one."""
    return _spans(*(words(table, key, one).format(*values) for one in LANGUAGES))


def _spans(*texts: str) -> str:
    if len(set(texts)) == 1:
        return escape(texts[0])
    return "".join(
        f'<span lang="{one}">{escape(text)}</span>'
        for one, text in zip(LANGUAGES, texts, strict=True)
    )
