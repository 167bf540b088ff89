# The sandbox's own image is not built here: `python -m sandbox image` writes it, so that the same
# inputs give the same bytes (docs/adr/0029-images-by-content.md).

# The platform: `docker build --target web`, run with a volume at /var/lib/escapement and the
# engine's socket for the worker (`manage.py work`). The web server itself needs no engine.
FROM python:3.11-slim AS web
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY pyproject.toml constraints.txt ./
COPY scripts/requirements.py scripts/
RUN python scripts/requirements.py web operators runner | grep -v '^torch' \
    | pip install --no-cache-dir --constraint constraints.txt --requirement /dev/stdin
COPY manage.py ./
COPY platform platform
COPY runner runner
COPY sandbox sandbox
COPY mechanisms_repo mechanisms_repo
COPY templates templates
ENV ESCAPEMENT_VAR=/var/lib/escapement PYTHONPATH=/app:/app/platform PYTHONUNBUFFERED=1
RUN useradd --uid 64001 escapement && install -d -o escapement -m 700 /var/lib/escapement
USER escapement
VOLUME /var/lib/escapement
EXPOSE 8000
CMD ["uvicorn", "config.asgi:application", "--host", "0.0.0.0", "--port", "8000"]

# The runner, beside the GPU: no Django, no git, no key of the platform. Name the index of the
# torch build that fits the host with --build-arg PIP_EXTRA_INDEX_URL=...
FROM python:3.11-slim AS runner
ARG PIP_EXTRA_INDEX_URL=
WORKDIR /app
COPY pyproject.toml constraints.txt ./
COPY scripts/requirements.py scripts/
RUN python scripts/requirements.py runner operators \
    | pip install --no-cache-dir --constraint constraints.txt --requirement /dev/stdin
COPY runner runner
COPY sandbox sandbox
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1
ENTRYPOINT ["python", "-m", "runner"]
