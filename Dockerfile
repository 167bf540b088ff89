# The sandbox: where generated code runs, before approval and after. `python -m sandbox image`
# builds it and stages `site/` (numpy, pytest and five files of ours); a build by hand has none.
# The base is the host's own Python where no registry answers. No RUN: nothing is fetched here.
ARG SANDBOX_BASE=python:3.11-slim
FROM ${SANDBOX_BASE} AS sandbox
COPY site/ /opt/sandbox/
WORKDIR /
USER 64000:64000
