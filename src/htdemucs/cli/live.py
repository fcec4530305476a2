"""`htdemucs live`: separate what is playing, while it plays."""

import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from htdemucs.cli import options as opt
from htdemucs.cli.console import print_status, print_table, status_console
from htdemucs.cli.keyboard import Keyboard
from htdemucs.cli.progress import ConsoleReporter, event_reporter
from htdemucs.cli.stdio_options import (
    exit_on_signals,
    pipe_depth_option,
    pipe_format_option,
    raw_format,
    raw_option,
    refuse_terminals,
    standard_input,
    standard_output,
)
from htdemucs.errors import HTDemucsError
from htdemucs.events import EventCallback, ProgressTracker, Warned

if TYPE_CHECKING:
    from htdemucs.audio import AudioPipe, RawFormat, SoundCard
    from htdemucs.model import Model
    from htdemucs.separation import LiveSeparator, RealTimeSeparator, Timing
    from htdemucs.separation.live_tuning import LiveOption
    from htdemucs.stems.live_player import LivePlayer
    from htdemucs.stems.mixer import Mixer

SAMPLE_RATE = 44_100  # Hz, of the models; a device that cannot gets its own
DEVICES, DELAY, PIPES = "Devices", "Delay", "Pipes"  # headings of the help
POLL_INTERVAL = 0.2  # seconds between checks of the devices
SOLO = "!@#$%^&*("  # Shift and 1 to 9, on a US keyboard
KEYS = (
    "keys: 1-9 mute, Shift+1-9 solo; left and right choose a stem, up and down its volume, "
    "M mute, S solo; Q ends"
)


EXAMPLES = """
htdemucs live -n mini --stems vocals=0            # from one device to another
htdemucs live --list-devices
htdemucs live -n mini --input BlackHole --output Headphones --latency 0.5
"""


@opt.command("live", examples=EXAMPLES)
@opt.option(
    "--stems",
    heading=opt.OUTPUT,
    metavar="STEM[=GAIN],...",
    help="Gains, as in vocals=0,drums=1.5; or these stems alone, as in vocals,drums.",
)
@opt.option(
    "--input",
    "input_device",
    heading=DEVICES,
    metavar="NAME",
    help="Device to record from: its name, or a part of it.",
)
@opt.option(
    "--output",
    "output_device",
    heading=DEVICES,
    metavar="NAME",
    help="Device to play to.",
)
@opt.flag("--list-devices", heading=DEVICES, help="Print the names of the devices, and exit.")
@opt.option(
    "--latency",
    default="auto",
    heading=DELAY,
    metavar="SECONDS|auto",
    help="The delay; auto chooses one for this machine, which is measured in both cases.",
)
@opt.option(
    "--timing",
    heading=DELAY,
    metavar="SEGMENT,HOP,LOOK_AHEAD,CROSSFADE,COMPUTE",
    help="Segment and parts of the delay, in seconds; the machine is not measured.",
)
@opt.flag(
    "--fresh",
    heading=PIPES,
    help="Discard input that arrives before the network is ready, as from a recorder.",
)
@raw_option
@pipe_format_option
@pipe_depth_option
@opt.name_option
@opt.repo_option
@opt.config_option
@opt.device_option
@opt.precision_option(opt.DEFAULTS.precision)
@opt.progress_option
@opt.quiet_option
def live(
    *,
    name: str,
    repo: Path | None,
    config: Path | None,
    device: str | None,
    stems: str | None,
    latency: str,
    timing: str | None,
    input_device: str | None,
    output_device: str | None,
    list_devices: bool,
    fresh: bool,
    raw: str | None,
    file_format: str,
    bit_depth: str,
    precision: str,
    progress: str,
    quiet: bool,
) -> None:
    """Separate what is playing, while it plays: from one device to another, or in pipes."""
    pipes = not (input_device or output_device or sys.stdin.isatty())
    with (
        event_reporter(progress, quiet=quiet, console=ConsoleReporter(bars=pipes)) as on_event,
        exit_on_signals(),
    ):
        from htdemucs.audio import SoundCard
        from htdemucs.fast import keep_freed_memory
        from htdemucs.stems.live_player import live_pipe
        from htdemucs.stems.mixer import Mixer
        from htdemucs.weights import load_model

        if list_devices:
            _print_devices()
            return
        seconds, exact_timing, gains = _seconds(latency), _timing(timing), _gains(stems)
        source = raw_format(raw)
        if pipes:
            refuse_terminals()
        card = None if pipes else SoundCard(input_device, output_device, SAMPLE_RATE)
        discarding = _DiscardingPipe(source) if pipes and fresh else None
        model = load_model(name, repo=repo, config=config, device=device, on_progress=on_event)
        mixer = Mixer(model.sources, gains(model.sources))
        keep_freed_memory()
        separator = _separator(model, precision, seconds, exact_timing)
        if card:
            _run_card(separator, mixer, card, on_event)
            return
        pipe = discarding.end() if discarding else _pipe(source)
        pipe.sample_rate = model.sample_rate
        pipe.channels = model.audio_channels
        rate = pipe.source_sample_rate
        print_status(f"{pipe.channels} channels, {rate} Hz, {separator.timing.delay:.3f} s later")
        with standard_output(rate, pipe.channels, file_format, bit_depth) as writer:
            live_pipe(separator, pipe, writer, mixer, on_progress=on_event)


def _separator(
    model: "Model",
    precision: str,
    latency: float | None,
    exact_timing: "tuple[float, Timing] | None",
) -> "LiveSeparator":
    """Return a separator with the given segment and timing, or the best one for this machine."""
    from htdemucs.separation import LiveSeparator, Separator
    from htdemucs.separation.live_tuning import tuned_separator

    if exact_timing:
        segment, timing = exact_timing
        separator = Separator(model, segment=segment, precision=precision, shifts=0)
        return LiveSeparator(separator, timing)
    print_status("measuring this machine")
    live, options = tuned_separator(model, precision, latency)
    _print_options(options)
    return live


def _print_options(options: "Sequence[LiveOption]") -> None:
    from rich.table import Table

    table = Table(caption="seconds; the first is taken")
    headers = ("segment", "network", "hop", "look-ahead", "crossfade", "compute", "delay", "load")
    for header in headers:
        table.add_column(header, justify="right")
    for option in options:
        timing = option.timing
        seconds = (timing.hop, timing.look_ahead, timing.crossfade, timing.compute, timing.delay)
        cells = [f"{value:.2f}" for value in (option.inference_time, *seconds)]
        table.add_row(f"{option.segment:g}", *cells, f"{100 * option.load:.0f} %")
    status_console().print(table)


def _pipe(source: "RawFormat | None") -> "AudioPipe":
    from htdemucs.audio import AudioPipe
    from htdemucs.audio.soundcard import BLOCK_SECONDS

    return AudioPipe(
        standard_input(), sample_rate=SAMPLE_RATE, channels=2, raw=source, seconds=BLOCK_SECONDS
    )


class _DiscardingPipe:
    """Reads standard input in a thread and discards it, until `end`."""

    def __init__(self, source: "RawFormat | None") -> None:
        self._source, self._stop = source, threading.Event()
        self._pipe: AudioPipe | None = None
        self._error: HTDemucsError | None = None
        self._thread = threading.Thread(target=self._discard, daemon=True)
        self._thread.start()

    def _discard(self) -> None:
        try:
            self._pipe = _pipe(self._source)
            self._pipe.discard(self._stop.is_set)
        except HTDemucsError as error:
            self._error = error

    def end(self) -> "AudioPipe":
        """Stop discarding, and return the pipe."""
        self._stop.set()
        self._thread.join()
        if self._error:
            raise self._error
        assert self._pipe is not None
        return self._pipe


def _run_card(
    live: "LiveSeparator", mixer: "Mixer", card: "SoundCard", on_event: EventCallback
) -> None:
    from htdemucs.separation import RealTimeSeparator
    from htdemucs.stems.live_player import NAME, LivePlayer

    def on_change(timing: "Timing") -> None:
        text = f"the network is too slow for this delay, which is {timing.delay:.2f} s now"
        on_event(Warned(NAME, text))

    realtime = RealTimeSeparator(live, on_change)
    player = LivePlayer(realtime, mixer, card)
    print_status(
        f"{card.names[0]} -> {card.names[1]}, {card.sample_rate} Hz, {player.delay:.2f} s later"
    )
    with Keyboard() as keyboard, realtime:
        if keyboard.there:
            print_status(KEYS)
        player.start()
        try:
            _play(player, mixer, keyboard, on_event)
        finally:
            player.stop()
            print_status(_report(player, realtime, card))


def _play(
    player: "LivePlayer", mixer: "Mixer", keyboard: Keyboard, on_event: EventCallback
) -> None:
    """Apply the keys to the mixer until Q is pressed."""
    from htdemucs.stems.live_player import NAME

    selected, progress = 0, ProgressTracker(NAME, None)
    while True:
        player.check()
        key = keyboard.wait(POLL_INTERVAL)
        if key is None:
            on_event(progress.at(player.received))
        elif key in ("q", "Q"):
            return
        elif (pressed := press(key, mixer, selected)) is not None:
            selected = pressed
            print_status(mixer.describe(selected))


def press(key: str, mixer: "Mixer", selected: int) -> int | None:
    """Apply a key to the mixer and return the selected stem; None if the key has no function."""
    count = len(mixer.stems)
    if key in ("left", "right"):
        return (selected + (1 if key == "right" else -1)) % count
    if key in ("up", "down", "+", "-"):
        mixer.adjust_gain(selected, 1 if key in ("up", "+") else -1)
    elif key in ("m", "M"):
        mixer.mute(selected)
    elif key in ("s", "S"):
        mixer.solo(selected)
    elif key and key in "123456789" and int(key) <= count:
        selected = int(key) - 1
        mixer.mute(selected)
    elif key and key in SOLO and SOLO.index(key) < count:
        selected = SOLO.index(key)
        mixer.solo(selected)
    else:
        return None
    return selected


def _report(player: "LivePlayer", realtime: "RealTimeSeparator", card: "SoundCard") -> str:
    live = realtime.live
    passthrough = live.passthrough / live.sample_rate
    return (
        f"received {player.received:.1f} s; the network was late {realtime.late} times, so the "
        f"mixture was played for {passthrough:.2f} s; {card.dropouts} dropouts of the devices; "
        f"measured delay {player.measured_delay:.2f} s"
    )


def _print_devices() -> None:
    from rich.table import Table

    from htdemucs.audio import list_devices

    table = Table()
    for header in ("name", "inputs", "outputs", "Hz", "default"):
        table.add_column(
            header, justify="right" if header in ("inputs", "outputs", "Hz") else "left"
        )
    for device in list_devices():
        numbers = map(str, (device.inputs, device.outputs, device.sample_rate))
        table.add_row(device.name, *numbers, ", ".join(device.default_for))
    print_table(table)


def _seconds(latency: str) -> float | None:
    if latency == "auto":
        return None
    try:
        seconds = float(latency)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 60:
        raise click.UsageError(f"--latency must be auto or seconds up to 60, not {latency}")
    return seconds


def _timing(text: str | None) -> "tuple[float, Timing] | None":
    from htdemucs.separation import Timing

    if text is None:
        return None
    try:
        segment, hop, look_ahead, crossfade, compute = (float(item) for item in text.split(","))
    except ValueError:
        raise click.UsageError(
            f"--timing must be five numbers of seconds, as in 4,0.2,0.1,0.03,0.15, not {text}"
        ) from None
    return segment, Timing(hop, look_ahead, crossfade, compute)


def _gains(text: str | None) -> Callable[[Sequence[str]], dict[str, float]]:
    """Return a function from a model's stems to their gains."""
    named: dict[str, float] = {}
    items = [item.strip() for item in (text or "").split(",") if item.strip()]
    for item in items:
        stem, _, gain = item.partition("=")
        try:
            named[stem.strip()] = float(gain or 1)
        except ValueError:
            raise click.UsageError(
                f"--stems must be like vocals=0,drums=1 or vocals,drums, not {text}"
            ) from None
    others = 0.0 if any("=" not in item for item in items) else 1.0
    return lambda stems: dict.fromkeys(stems, others) | named
