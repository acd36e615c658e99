# The image of openmeet-appservice. `make test` runs every step of it outside a container, too.
#
#   docker build --tag openmeet-appservice .
#   docker run --rm --volume openmeet:/data openmeet-appservice init --output-dir /data …
#   docker run --volume openmeet:/data --publish 127.0.0.1:29350-29352:29350-29352 openmeet-appservice

FROM python:3.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/openmeet-appservice
COPY requirements-run.lock ./
RUN /opt/openmeet-appservice/bin/pip install --require-hashes --only-binary :all: -r requirements-run.lock
COPY LICENSE README.md pyproject.toml setup.cfg ./
COPY openmeet_appservice/ openmeet_appservice/
RUN /opt/openmeet-appservice/bin/pip install --no-deps --no-build-isolation .
# What has built it is not needed to run it.
RUN /opt/openmeet-appservice/bin/pip uninstall --yes setuptools pip

FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="openmeet-appservice" \
      org.opencontainers.image.description="The Matrix application service of OpenMeet" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/openmeet-appservice /opt/openmeet-appservice
# Inside a container the loopback address is reached by nobody else. HOME suits users without one.
ENV PATH=/opt/openmeet-appservice/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OPENMEET_AS_APPSERVICE__LISTEN=0.0.0.0:29350 \
    OPENMEET_AS_PROVISIONING__LISTEN=0.0.0.0:29351 \
    OPENMEET_AS_OPS__LISTEN=0.0.0.0:29352
# A container that is given another user id (`--user 1234`, OpenShift) has that user in group 0.
RUN mkdir -p /data && chgrp 0 /data && chmod 0770 /data
WORKDIR /data
VOLUME ["/data"]
EXPOSE 29350 29351 29352
USER 10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["openmeet-appservice", "healthcheck", "-c", "/data/config.yaml"]
ENTRYPOINT ["openmeet-appservice"]
CMD ["run", "-c", "/data/config.yaml"]
