# The trainer in a container, on a CPU or on NVIDIA GPUs.
#
# Build:  docker build -t ssds --build-arg UID="$(id -u)" .                            # CPU
#         docker build -t ssds --build-arg UID="$(id -u)" --build-arg TORCH=cu126 .    # GPU: a folder of PyTorch's wheels
# Data:   docker run --rm -it --init -v "$PWD/data:/ssds/data" --entrypoint python ssds -m lib.tools.download bccd data/BCCD
# Train:  docker run --rm -it --init --shm-size 2g -v "$PWD/data:/ssds/data" -v "$PWD/experiments:/ssds/experiments" \
#             ssds --cfg experiments/cfgs/ssd_lite_mobilenetv2_bccd.yml                # GPU: also --gpus all
#
# `mkdir -p data` first: Docker would make it, but for root.  GPUs need NVIDIA's driver and container toolkit on the host;
# the wheels bring the rest of CUDA.  Loading processes hand images over in /dev/shm, hence --shm-size.
FROM python:3.12-slim-bookworm

# What opencv-python links but does not bring along.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 libxcb1 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /ssds
ARG TORCH=cpu
COPY requirements.txt ./
RUN sed '/^# Development tools/,$d' requirements.txt > runtime.txt \
    && grep '^torch' runtime.txt > torch.txt \
    && pip install --no-cache-dir -r torch.txt --index-url "https://download.pytorch.org/whl/$TORCH" \
    && pip install --no-cache-dir -r runtime.txt

COPY lib ./lib
COPY experiments/cfgs ./experiments/cfgs
COPY train.py demo.py ./

ARG UID=1000
RUN useradd --uid "$UID" --create-home ssds \
    && mkdir -p data experiments/models \
    && chown -R ssds data experiments
USER ssds
# Downloaded weights of base networks outlive the container.
ENV TORCH_HOME=/ssds/data/torch
ENTRYPOINT ["python", "train.py"]
