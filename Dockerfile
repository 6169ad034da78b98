# MLAE Lab as an unprivileged user; only the store and /tmp need to be writable. docs/container.md says how to run it.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# Where torch and torchvision come from: PyTorch's builds for CPUs. Empty: the default index, whose builds bring CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# tini is the first process: it ends runs that outlived their supervisor, and passes signals on
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*
# 1000 is the user that Hugging Face Spaces run a container as
RUN useradd --uid 1000 --no-create-home --home-dir /store --shell /usr/sbin/nologin lab \
    && install -d -o lab -g lab /store /store/data /images

RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /app
COPY requirements.txt ./
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --constraint requirements.txt torch torchvision \
    && pip install --no-cache-dir --requirement requirements.txt
# The extras of pyproject.toml, for every export and sampler
ARG EXTRAS="peft>=0.21,<1 optuna>=4,<6 onnx>=1.17,<2 onnxscript>=0.3,<1 onnxruntime>=1.20,<2"
RUN pip install --no-cache-dir $EXTRAS

COPY pyproject.toml LICENSE ./
COPY assets assets
COPY pages pages
COPY mlae_lab mlae_lab
# once here: the code is read-only later, so that every process would compile it
RUN python -m compileall -q mlae_lab

ENV HOME=/store MLAE_LAB_STORE=/store MLAE_LAB_IMAGE_FOLDERS=/images
USER 1000:1000
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD python -c "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8501, timeout=4); c.request('GET', '/_stcore/health'); raise SystemExit(c.getresponse().status != 200)"
ENTRYPOINT ["tini", "--"]
# 0.0.0.0: of the container. The lab then requires MLAE_LAB_PASSWORD. SPACE_HOST is the public name of a Space.
CMD ["sh", "-c", "exec python -m mlae_lab app --host 0.0.0.0 --allow-host ${SPACE_HOST:-localhost}"]
