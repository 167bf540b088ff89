# The platform and the runner as images; docs/deploy.md has the commands to build and run them. The
# sandbox's own image is not built here: `python -m sandbox image` writes it, so that the same inputs
# give the same bytes (docs/adr/0029-images-by-content.md).
#
# BASE: any Debian with Python 3.11, its headers, pip and apt-get. PIP_INDEX_URL, PIP_EXTRA_INDEX_URL and
# PIP_FIND_LINKS name other places for packages; the versions are those of constraints.txt.
ARG BASE=python:3.11-slim

# `--target web`: the web server and, with another command, the worker. No torch.
FROM ${BASE} AS web
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 64001 --no-create-home escapement \
    && install -d -o escapement -g escapement -m 700 /var/lib/escapement
WORKDIR /app
COPY pyproject.toml constraints.txt ./
COPY scripts/requirements.py scripts/
RUN python scripts/requirements.py web runner | grep -v '^torch' > /tmp/needed \
    && pip install --no-cache-dir --constraint constraints.txt --requirement /tmp/needed \
    && pip check && rm /tmp/needed
COPY manage.py ./
COPY templates templates
COPY mechanisms_repo mechanisms_repo
COPY sandbox sandbox
COPY runner runner
COPY platform platform
RUN python -m compileall -q sandbox runner platform
ENV ESCAPEMENT_VAR=/var/lib/escapement ESCAPEMENT_SANDBOX_CACHE=/var/lib/escapement/sandbox \
    PYTHONPATH=/app:/app/platform PYTHONUNBUFFERED=1
USER escapement
VOLUME /var/lib/escapement
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["python", "manage.py", "serve", "--host", "0.0.0.0"]

# `--target runner`: beside the GPU. No Django, no git, no key of the platform. TORCH names the build
# of torch (cpu, cu128 ...): where no index has that one, the build fails instead of taking another.
FROM ${BASE} AS runner
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG TORCH=cpu
# torch.compile needs a compiler.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 64002 --no-create-home escapement \
    && install -d -o escapement -g escapement -m 700 /var/lib/escapement
WORKDIR /app
COPY pyproject.toml constraints.txt ./
COPY scripts/requirements.py scripts/
RUN { python scripts/requirements.py runner shards operators; sed -n "s/^torch==.*/&+$TORCH/p" constraints.txt; } \
    > /tmp/needed && pip install --no-cache-dir --constraint constraints.txt --requirement /tmp/needed \
    && pip check && rm /tmp/needed
COPY mechanisms_repo mechanisms_repo
COPY sandbox sandbox
COPY runner runner
RUN python -m compileall -q sandbox runner
ENV ESCAPEMENT_VAR=/var/lib/escapement ESCAPEMENT_SANDBOX_CACHE=/var/lib/escapement/sandbox \
    HOME=/var/lib/escapement PYTHONPATH=/app PYTHONUNBUFFERED=1
USER escapement
VOLUME /var/lib/escapement
ENTRYPOINT ["python", "-m", "runner"]
