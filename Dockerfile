# dns-tool in an image of its own: one static binary and nothing else.
#
#   docker build --tag dns-tool .
#   docker run --name dns-tool --publish 127.0.0.1:53:53/udp --publish 127.0.0.1:53:53/tcp dns-tool
#
# The same with a shell and dig beside it, to look at it from within. --dns writes the container's resolv.conf, so that dig
# asks dns-tool:
#
#   docker build --target debug --tag dns-tool:debug .
#   docker run --detach --name dns-tool --dns 127.0.0.1 dns-tool:debug
#   docker exec dns-tool dig +tcp example.com

# Where the base images come from, for those who have their own.
ARG RUST_IMAGE=docker.io/library/rust:1-bookworm
ARG DEBUG_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
# It knows when it was built.
COPY scripts/build.rs scripts/build.rs
# Cargo.toml names them, and cargo wants to see what is named.
COPY tests tests
# The target is named, though it is this machine's own: else the flags would hold for build scripts and macros too, which
# cannot be static.
RUN set -eu; \
    target=$(rustc -vV | sed -n 's/^host: //p'); \
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$target"; \
    install -D "target/$target/release/dns-tool" /out/dns-tool

FROM ${DEBUG_IMAGE} AS debug
RUN set -eu; \
    apt-get update; \
    apt-get install --yes --no-install-recommends bind9-dnsutils; \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /out/dns-tool /dns-tool
USER 65532:65532
EXPOSE 53/udp 53/tcp
ENTRYPOINT ["/dns-tool"]
CMD ["--address", "0.0.0.0"]

# The last stage is what is built when none is named.
FROM scratch
COPY --from=build /out/dns-tool /dns-tool
# Docker and containerd 2 let every user of a container listen on port 53. Where that is not so, as on the host's network:
# --sysctl net.ipv4.ip_unprivileged_port_start=0, or another --port.
USER 65532:65532
EXPOSE 53/udp 53/tcp
ENTRYPOINT ["/dns-tool"]
# Clients come from outside of the container's loopback, which is the default. Published ports reach a container by IPv4,
# those of the host's IPv6 addresses included; "--address ::" as well would fail where there is no IPv6, as it mostly is
# not in containers. Arguments of docker run take the place of these, so begin them with the addresses to listen on: on a
# network with IPv6 "--address 0.0.0.0 --address ::", beside the only client in a pod none at all.
CMD ["--address", "0.0.0.0"]
