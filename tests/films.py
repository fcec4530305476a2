"""Films for tests: pictures, and sound that may start late or lack a piece."""

from fractions import Fraction

import av

RATE = 48_000


def film(path, codec, waveform, starts, *, pictures=True, picture_start=0):
    """Write a picture a tenth of a second from `picture_start` on, and pieces of sound.

    `starts` gives the time of each of them, in samples; they are of equal length.
    """
    with av.open(str(path), "w") as container:
        if pictures:
            video = container.add_stream("flv" if path.suffix == ".flv" else "mpeg4", rate=10)
            video.width = video.height = 64
        sound = container.add_stream(codec, rate=RATE)
        sound.codec_context.layout = "stereo"
        container.start_encoding()
        if pictures:
            for index in range(20):
                picture = av.VideoFrame(64, 64, "yuv420p")
                picture.pts, picture.time_base = index + 10 * picture_start, Fraction(1, 10)
                container.mux(video.encode(picture))
            container.mux(video.encode(None))
        packets = encoded(sound, waveform)
        starts = iter(starts)
        for index, packet in enumerate(packets):
            if index % (-(-len(packets) // 2)) == 0:
                shift = next(starts)
            packet.pts = packet.dts = round(packet.pts * packet.time_base * RATE) + shift
            packet.time_base = Fraction(1, RATE)
            packet.stream = sound
            container.mux(packet)
    return path


def encoded(stream, waveform):
    codec = stream.codec_context
    resampler = av.AudioResampler(codec.format, "stereo", RATE, frame_size=codec.frame_size or 1024)
    frame = av.AudioFrame.from_ndarray(waveform.numpy(), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    return [packet for piece in [*pieces, None] for packet in stream.encode(piece)]
