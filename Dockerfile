# docker build -t aelab .
# docker run --rm -v "$PWD":/home/aelab/lab -v aelab-data:/data aelab train vae
# A mounted folder must be writable for uid 1000. `aelab ui` listens on 127.0.0.1: it needs --network host.

FROM python:3.13-slim-trixie AS build
ENV UV_COMPILE_BYTECODE=1 \
    UV_CACHE_DIR=/tmp/uv \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never \
    VIRTUAL_ENV=/opt/venv
RUN pip install --no-cache-dir --root-user-action=ignore uv==0.13.9 && uv venv /opt/venv
WORKDIR /src
COPY requirements.lock ./
RUN --mount=type=cache,target=/tmp/uv uv pip sync --require-hashes requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY aelab aelab
COPY recipes recipes
# The build uses the locked setuptools, so that nothing but the lock comes from outside.
RUN --mount=type=cache,target=/tmp/uv uv pip install --no-deps --no-build-isolation .

FROM python:3.13-slim-trixie
LABEL org.opencontainers.image.title="aelab" \
      org.opencontainers.image.description="Train, evaluate, sample and compare autoencoders and generative models" \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.authors="The aelab authors" \
      org.opencontainers.image.licenses="MIT"
RUN useradd --uid 1000 --create-home aelab \
    && install -d -o aelab -g aelab /home/aelab/lab /home/aelab/lab/mlruns /data
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GIT_PYTHON_REFRESH=quiet \
    AELAB_DATA=/data
USER 1000
WORKDIR /home/aelab/lab
VOLUME ["/home/aelab/lab", "/data"]
ENTRYPOINT ["aelab"]
CMD ["--help"]
