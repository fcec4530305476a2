"""The figure of a network with its sizes: laid out from its stages, and drawn as SVG.

Encoders run down the middle and decoders up the sides, so that no two lines cross.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby, pairwise
from typing import Literal

from htdemucs.tracing.stages import Branch, Stage
from htdemucs.tracing.texts import FIGURE, Language, words

MARGIN, WIDTH, HEIGHT = 24, 268, 68  # pixels; of the border, of a box
COLUMN_GAP, ROW_GAP = 40, 40
LANE = 16  # between the lines of skip connections beside the boxes
TITLE, LABEL, SMALL, SHAPE = 16, 13, 11, 12  # font sizes
LATIN, WIDE = 0.58, 1.0  # widths of a letter and of a Chinese character, in font sizes
Anchor = Literal["start", "middle", "end"]

STYLE = """
svg.network { --ink: #1f2328; --soft: #57606a; --line: #8c959f; --paper: #fff;
  --spectral: #dbe9fb; --time: #fde5cc; --both: #e9ecef;
  --spectral-edge: #2f6fb5; --time-edge: #b5651d; --both-edge: #6e7781; background: var(--paper);
  font-family: system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif }
@media (prefers-color-scheme: dark) { svg.network { --ink: #e6edf3; --soft: #a5b0bb;
  --line: #7d8590; --paper: #0d1117; --spectral: #16304f; --time: #4a2f14; --both: #2a3038;
  --spectral-edge: #6cb0f5; --time-edge: #f0a860; --both-edge: #9aa4ae } }
@media print { svg.network { --ink: #000; --soft: #444; --line: #777; --paper: #fff;
  --spectral: #e6f0fc; --time: #fdeedd; --both: #f1f3f5;
  --spectral-edge: #2f6fb5; --time-edge: #b5651d; --both-edge: #6e7781 } }
svg.network text { fill: var(--ink) } svg.network .small { fill: var(--soft) }
svg.network .shape { font-variant-numeric: tabular-nums }
svg.network rect { stroke-width: 1.5 }
svg.network .spectral rect { fill: var(--spectral); stroke: var(--spectral-edge) }
svg.network .time rect { fill: var(--time); stroke: var(--time-edge) }
svg.network .both rect { fill: var(--both); stroke: var(--both-edge) }
svg.network path { fill: none; stroke: var(--line); stroke-width: 1.5 }
svg.network path.skip { stroke-dasharray: 5 4 }
svg.network marker path { fill: var(--line); stroke: none }
svg.network a:focus-visible { outline: none }
svg.network a:focus-visible rect, svg.network a:hover rect { stroke-width: 3.5 }
"""


@dataclass(frozen=True)
class Text:
    """A line of text; `x` and `y` are those of its baseline's anchor."""

    x: float
    y: float
    text: str
    size: int
    kind: str = ""
    anchor: Anchor = "middle"
    limit: float | None = None  # pixels; a longer text is compressed

    @property
    def width(self) -> float:
        """The width in pixels, estimated."""
        estimate = sum(WIDE if ord(c) > 0x2E7F else LATIN for c in self.text) * self.size
        return estimate if self.limit is None else min(estimate, self.limit)

    @property
    def left(self) -> float:
        """The left edge."""
        return self.x - self.width * {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor]


@dataclass(frozen=True)
class Box:
    """A box of a stage, with its lines of text."""

    stage: Stage
    x: float
    y: float
    width: float
    lines: tuple[Text, ...]

    @property
    def middle(self) -> float:
        """The horizontal middle."""
        return self.x + self.width / 2


@dataclass(frozen=True)
class Line:
    """A line with right angles; its end has an arrow head."""

    points: tuple[tuple[float, float], ...]
    is_skip: bool = False


@dataclass
class Layout:
    """Everything in the figure, in pixels."""

    title: str
    boxes: list[Box] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


def figure(
    stages: Sequence[Stage], title: str, language: Language = "en", *, links: bool = False
) -> str:
    """Return the figure as SVG.

    Args:
        stages: of depth 2.
        title: the line at its top.
        language: of its words.
        links: whether boxes link to "#stage-NUMBER".
    """
    return to_svg(layout(stages, title, language), language, links=links)


def layout(stages: Sequence[Stage], title: str, language: Language = "en") -> Layout:
    """Return where everything is."""
    drawing = _Drawing(stages, language)
    if any(stage.key == "spectrogram" for stage in stages):
        drawing.hybrid()
    else:
        drawing.demucs()
    return drawing.finished(title)


class _Drawing:
    """Puts boxes into a grid and connects them. Row 0 is the first below the title."""

    def __init__(self, stages: Sequence[Stage], language: Language) -> None:
        self._stages = {stage.number: stage for stage in stages if stage.depth == 1}
        self._parts = {
            number: list(parts)
            for number, parts in groupby(
                (stage for stage in stages if stage.depth == 2),
                key=lambda stage: stage.number.partition(".")[0],
            )
        }
        self._language = language
        self._layout = Layout("")
        self._by_number: dict[str, Box] = {}

    def stages(self, key: str) -> list[Stage]:
        """Return the stages of one kind."""
        return [stage for stage in self._stages.values() if stage.key == key]

    def stage(self, key: str) -> Stage:
        """Return the only stage of one kind."""
        [stage] = self.stages(key)
        return stage

    def box(self, stage: Stage, row: float, column: float, columns: float = 1) -> Box:
        """Add the box of a stage, which may be several columns wide."""
        x = MARGIN + column * (WIDTH + COLUMN_GAP)
        y = MARGIN + TITLE + 28 + row * (HEIGHT + ROW_GAP)
        width = columns * WIDTH + (columns - 1) * COLUMN_GAP
        name = f"{stage.number}  {stage.label(self._language)}"
        texts = [(name, LABEL, "label"), *((text, SMALL, "small") for text in self._inside(stage))]
        heights = [size + 5 for _, size, _ in texts]
        top = y + (HEIGHT - sum(heights)) / 2
        lines = []
        for (text, size, kind), height in zip(texts, heights, strict=True):
            top += height
            lines.append(Text(x + width / 2, top - 4, text, size, kind, limit=width - 12))
        box = Box(stage, x, y, width, tuple(lines))
        self._layout.boxes.append(box)
        self._by_number[stage.number] = box
        return box

    def _inside(self, stage: Stage) -> list[str]:
        """Return what happens in a stage, in one or two lines, in the order of the computation."""
        parts = self._parts.get(stage.number, [])
        if stage.key.endswith("_transformer"):
            return self._attention(parts)
        before: list[str] = []
        after: list[str] = []
        seen = False
        for key, several in groupby(parts, key=lambda part: part.key):
            if key in ("conv", "conv_transpose", "time_conv_transpose", "band"):
                seen = True
            elif text := self._short(key, list(several)):
                (after if seen else before).append(text)
        if stage.key == "time_split":
            other = self.stage("spectral_split").number
            return [words(FIGURE, "shared", self._language).format(other), stage.operation]
        if before:  # a decoder, which ends with its transposed convolution
            return [", ".join(before), ", ".join([stage.operation, *after])]
        return [line for line in (stage.operation, ", ".join(after)) if line]

    def _attention(self, parts: Sequence[Stage]) -> list[str]:
        """Return how many layers attend to what: "3 × self-attention: 8 heads, 2024 × 2024"."""
        lines = []
        for key in ("self_attention", "cross_attention"):
            layers = [part for part in parts if part.key == key]
            if layers:
                name = words(FIGURE, key, self._language)
                sizes = layers[0].operation.partition(";")[0]
                lines.append(f"{len(layers)} × {name}: {sizes}")
        return lines

    def _short(self, key: str, parts: Sequence[Stage]) -> str:
        if key == "dconv":
            context = ", ".join(parts[-1].operation.split(", ")[2:])
            return f"{len(parts)} × DConv" + (f" ({context})" if context else "")
        if key in ("rewrite", "rewrite_wide"):
            return parts[0].operation.partition(",")[0]
        if key in ("skip", "frequency_embedding"):
            return words(FIGURE, key, self._language)
        return "GLU" if key == "glu" else ""  # norms are left to the list of parts

    # Lines

    def down(self, above: Box, below: Box, x: float | None = None) -> None:
        """Connect two boxes downwards, or at `x` straight from one to the other."""
        x = x if x is not None else below.middle
        self._line((x, above.y + HEIGHT), (x, below.y))
        self._shape(above.stage, x, (above.y + HEIGHT + below.y) / 2)

    def up(self, below: Box, above: Box) -> None:
        """Connect two boxes upwards."""
        x = above.middle
        self._line((x, below.y), (x, above.y + HEIGHT))
        anchor: Anchor = "end" if above.x == MARGIN else "start"
        self._shape(below.stage, x, (below.y + above.y + HEIGHT) / 2, anchor)

    def across(self, source: Box, target: Box) -> None:
        """Connect an encoder to the decoder beside it."""
        y = source.y + HEIGHT / 2
        if target.x > source.x:
            self._line((source.x + source.width, y), (target.x, y), is_skip=True)
        else:
            self._line((source.x, y), (target.x + target.width, y), is_skip=True)

    def aside(self, source: Box, target: Box, lane: int, side: int) -> None:
        """Connect two boxes of one column past those between them; `side` is 1 for the right."""
        start = source.x + source.width if side > 0 else source.x
        x = start + side * LANE * (lane + 1)
        first = source.y + HEIGHT / 2
        if target.width > source.width or target.x != source.x:
            self._line((start, first), (x, first), (x, target.y), is_skip=True)
            return
        last = target.y + HEIGHT / 2
        self._line((start, first), (x, first), (x, last), (start, last), is_skip=True)

    def _line(self, *points: tuple[float, float], is_skip: bool = False) -> None:
        self._layout.lines.append(Line(points, is_skip))

    def _shape(self, stage: Stage, x: float, y: float, anchor: Anchor = "start") -> None:
        text = stage.shape_text
        x += -8 if anchor == "end" else 8
        self._layout.texts.append(Text(x, y + 4, text, SHAPE, "shape", anchor))

    # Networks

    def hybrid(self) -> None:
        """A network with two branches: decoder, encoder, encoder, decoder from left to right."""
        output = self.box(self.stage("output"), 0, 1, 2)
        mixture = self.box(self.stage("input"), 1, 1, 2)
        spectrogram = self.box(self.stage("spectrogram"), 2, 1)
        inputs = [
            self.box(self.stage("spectral_input"), 3, 1),
            self.box(self.stage("time_input"), 3, 2),
        ]
        waveforms = [
            self.box(self.stage("spectral_output"), 2, 0),
            self.box(self.stage("time_output"), 2, 3),
        ]
        self.down(mixture, spectrogram)
        self.down(spectrogram, inputs[0])
        self.down(mixture, inputs[1])
        for box, edge in zip(waveforms, (output.x, output.x + output.width), strict=True):
            y = output.y + HEIGHT / 2
            self._line((box.middle, box.y), (box.middle, y), (edge, y))
            text = box.stage.shape_text
            self._layout.texts.append(Text(box.middle, y - 8, text, SHAPE, "shape"))
        ends = []
        for first, column in zip(inputs, (1, 2), strict=True):
            branch: Branch = first.stage.branch
            box = first
            for i, stage in enumerate(self.stages(f"{branch}_encoder")):
                below = self.box(stage, 4 + i, column)
                self.down(box, below)
                box = below
            ends.append(box)
        row = 4 + len(self.stages("spectral_encoder"))
        corners = self._bottom(row, ends)
        for corner, output_box, column in zip(corners, waveforms, (0, 3), strict=True):
            branch = output_box.stage.branch
            box = corner
            for i, stage in enumerate(self.stages(f"{branch}_decoder")):
                above = self.box(stage, row - 1 - i, column)
                if box.y > above.y + HEIGHT:  # else the encoders' end leads here
                    self.up(box, above)
                self.across(self._by_number[stage.skip], above)
                box = above
            self.up(box, output_box)

    def _bottom(self, row: int, ends: Sequence[Box]) -> tuple[Box, Box]:
        """What is between encoders and decoders; return where the decoders begin."""
        if self.stages("merge"):
            return self._joint(row, ends)
        if not self.stages("spectral_transformer"):
            return self._turn(row, ends)
        spectral = self.box(self.stage("spectral_transformer"), row, 0, 2)
        time = self.box(self.stage("time_transformer"), row, 2, 2)
        self.down(ends[0], spectral, ends[0].middle)
        self.down(ends[1], time, ends[1].middle)
        y = spectral.y + HEIGHT / 2
        middle = (spectral.x + spectral.width + time.x) / 2
        self._line((middle, y), (time.x, y))
        self._line((middle, y), (spectral.x + spectral.width, y))
        text = words(FIGURE, "cross_attention", self._language)
        self._layout.texts.append(Text(middle, spectral.y + HEIGHT + 16, text, SMALL, "small"))
        return spectral, time

    def _turn(self, row: int, ends: Sequence[Box]) -> tuple[Box, Box]:
        """Without a transformer, each branch turns around: its last encoder feeds its decoder."""
        corners = []
        for end, side in zip(ends, (-1, 1), strict=True):
            y = end.y + HEIGHT + ROW_GAP / 2
            x = end.middle + side * (WIDTH + COLUMN_GAP)
            self._line((end.middle, end.y + HEIGHT), (end.middle, y), (x, y), (x, end.y + HEIGHT))
            text = end.stage.shape_text
            self._layout.texts.append(Text((end.middle + x) / 2, y + 16, text, SHAPE, "shape"))
            corners.append(Box(end.stage, x - WIDTH / 2, end.y + HEIGHT, WIDTH, ()))
        del row
        return corners[0], corners[1]

    def _joint(self, row: int, ends: Sequence[Box]) -> tuple[Box, Box]:
        """The layers between merge and split of Hybrid Demucs, one below the other."""
        merge = self.box(self.stage("merge"), row, 1, 2)
        for end in ends:
            self.down(end, merge, end.middle)
        chain = [merge]
        for stage in [*self.stages("joint_encoder"), *self.stages("joint_decoder")]:
            chain.append(self.box(stage, row + len(chain), 1, 2))
        spectral = self.box(self.stage("spectral_split"), row + len(chain), 0, 2)
        time = self.box(self.stage("time_split"), row + len(chain), 2, 2)
        for above, below in pairwise(chain):
            self.down(above, below, below.middle)
        for box, x in ((spectral, ends[0].middle), (time, ends[1].middle)):
            self.down(chain[-1], box, x)
        self.aside(merge, spectral, len(chain), -1)
        for stage in self.stages("joint_decoder"):
            encoder = self._by_number[stage.skip]
            lane = chain.index(self._by_number[stage.number]) - chain.index(encoder)
            self.aside(encoder, self._by_number[stage.number], lane - 1, 1)
        return spectral, time

    def demucs(self) -> None:
        """The network on the waveform: encoders on the left, decoders on the right."""
        mixture = self.box(self.stage("input"), 0, 0)
        upsampled = self.box(self.stage("upsampled"), 1, 0)
        self.down(mixture, upsampled)
        output, box = self.box(self.stage("sources"), 0, 1), upsampled
        encoders = self.stages("encoder")
        for i, stage in enumerate(encoders):
            below = self.box(stage, 2 + i, 0)
            self.down(box, below)
            box = below
        row = 1 + len(encoders)
        y = box.y + HEIGHT + ROW_GAP / 2
        x = box.middle + WIDTH + COLUMN_GAP
        self._line((box.middle, box.y + HEIGHT), (box.middle, y), (x, y), (x, box.y + HEIGHT))
        text = box.stage.shape_text
        self._layout.texts.append(Text((box.middle + x) / 2, y + 16, text, SHAPE, "shape"))
        box = Box(box.stage, x - WIDTH / 2, box.y + HEIGHT, WIDTH, ())
        for i, stage in enumerate(self.stages("decoder")):
            above = self.box(stage, row - i, 1)
            if i:
                self.up(box, above)
            self.across(self._by_number[stage.skip], above)
            box = above
        self.up(box, output)

    def finished(self, title: str) -> Layout:
        """Return the layout with its title and size."""
        drawing = self._layout
        right = max(box.x + box.width for box in drawing.boxes)
        right = max([right, *(text.left + text.width for text in drawing.texts)])
        drawing.width = right + MARGIN
        bottoms = [box.y + HEIGHT for box in drawing.boxes]
        drawing.height = max([*bottoms, *(text.y for text in drawing.texts)]) + MARGIN
        drawing.title = title
        limit = drawing.width - 2 * MARGIN
        drawing.texts.append(
            Text(MARGIN, MARGIN + TITLE / 2, title, TITLE, "title", "start", limit)
        )
        legend = words(FIGURE, "legend", self._language)
        drawing.texts.append(
            Text(MARGIN, MARGIN + TITLE + 8, legend, SMALL, "small", "start", limit)
        )
        return drawing


def to_svg(drawing: Layout, language: Language = "en", *, links: bool = False) -> str:
    """Return a layout as SVG."""
    arrow = f"arrow-{language}"  # a page has the figure in both languages
    size = f'viewBox="0 0 {drawing.width:g} {drawing.height:g}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="network" {size} '
        f'width="{drawing.width:g}" height="{drawing.height:g}" lang="{language}" '
        f'role="{"group" if links else "img"}" aria-label="{escape(drawing.title)}">',
        f"<style>{STYLE}</style>",
        f'<defs><marker id="{arrow}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>',
        *(_line_svg(line, arrow) for line in drawing.lines),
        *(_box_svg(box, language, links=links) for box in drawing.boxes),
        *map(_text_svg, drawing.texts),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _line_svg(line: Line, arrow: str) -> str:
    path = " ".join(f"{x:g} {y:g}" for x, y in line.points)
    kind = ' class="skip"' if line.is_skip else ""
    return f'<path{kind} d="M{path}" marker-end="url(#{arrow})"/>'


def _box_svg(box: Box, language: Language, *, links: bool) -> str:
    shape = box.stage.shape_text
    title = f"{box.stage.number}: {box.stage.label(language)}, {shape}"
    inner = (
        f'<g class="{box.stage.branch}"><title>{escape(title)}</title>'
        f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{HEIGHT}" rx="8"/>'
        f"{''.join(map(_text_svg, box.lines))}</g>"
    )
    if not links:
        return inner
    return f'<a href="#stage-{box.stage.number}" aria-label="{escape(title)}">{inner}</a>'


def _text_svg(text: Text) -> str:
    estimate = Text(text.x, text.y, text.text, text.size).width
    fit = ""
    if text.limit is not None and estimate > text.limit:
        fit = f' textLength="{text.limit:g}" lengthAdjust="spacingAndGlyphs"'
    weight = ' font-weight="600"' if text.kind in ("label", "title") else ""
    return (
        f'<text x="{text.x:g}" y="{text.y:g}" font-size="{text.size}" class="{text.kind}" '
        f'text-anchor="{text.anchor}"{weight}{fit}>{escape(text.text)}</text>'
    )


def rectangles(drawing: Layout) -> Iterator[tuple[float, float, float, float, str]]:
    """Yield left, top, right, bottom and a name of every box and of every text outside boxes."""
    for box in drawing.boxes:
        yield box.x, box.y, box.x + box.width, box.y + HEIGHT, box.stage.number
    for text in drawing.texts:
        top = text.y - 0.8 * text.size
        yield text.left, top, text.left + text.width, text.y + 0.2 * text.size, text.text
