# docker build -t htdemucs .
# docker run --rm -v "$PWD:/music" htdemucs separate song.mp3
# docker run --rm -v "$PWD:/music" -p 127.0.0.1:8000:8000 htdemucs serve --host 0.0.0.0 --data /music/.htdemucs
FROM python:3.13-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++
COPY . /src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src

FROM python:3.13-slim-bookworm
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --index-url "$TORCH_INDEX" torch && \
    pip install --no-cache-dir "$(echo /wheels/*.whl)[server]" && \
    useradd --create-home --uid 1000 listener && \
    mkdir /models /music && chown 1000 /models /music
USER 1000
ENV HF_HOME=/models/huggingface XDG_CACHE_HOME=/models
VOLUME /models
WORKDIR /music
# Of `serve`; nobody asks after the health of other commands.
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health')"]
EXPOSE 8000
ENTRYPOINT ["htdemucs"]
CMD ["--help"]
