# depthkit with all extras, for clusters: docker build -t depthkit . && docker run --gpus all --ipc host -v "$PWD:/work" depthkit fit --config RECIPE
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY depthkit depthkit
COPY recipes recipes
RUN pip install --no-cache-dir '.[all,diffusion,onnx]'
RUN useradd --create-home depthkit
USER depthkit
WORKDIR /work
ENTRYPOINT ["depthkit"]
