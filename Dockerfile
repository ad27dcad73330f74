# Ray's image with raydream in it, for docs/rayjob.yaml: docker build --tag raydream .
FROM rayproject/ray:2.60.0-py311-gpu
# A process that reserves no GPU sees none.
ENV RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1
WORKDIR /home/ray/raydream
COPY --chown=ray pyproject.toml README.md LICENSE constraints.txt ./
COPY --chown=ray platform platform
COPY --chown=ray configs configs
COPY --chown=ray tuning/spaces tuning/spaces
RUN pip install --no-cache-dir --constraint constraints.txt '.[all]'
WORKDIR /home/ray
