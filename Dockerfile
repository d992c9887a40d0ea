# dns-tool in an image of its own: one static binary and nothing else.
#
#   docker build --tag dns-tool .
#   docker build --target debug --tag dns-tool:debug .
#
# The target debug is the same with a shell and dig beside it. How to run them: src/guide/containers.md.

# Where the base images come from, for those who have their own. scripts/image-base makes some without a registry.
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
    install -D "target/$target/release/dns-tool" /out/dns-tool; \
    rm -r target

# What both images say of themselves stands in both, since none of it outlives a copy from one to the other.
FROM ${DEBUG_IMAGE} AS debug
RUN set -eu; \
    apt-get update; \
    apt-get install --yes --no-install-recommends bind9-dnsutils; \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /out/dns-tool /dns-tool
ENV DNS_TOOL_ADDRESS=0.0.0.0
USER 65532:65532
EXPOSE 53/udp 53/tcp
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s CMD ["/dns-tool", "query", ".", "NS"]
ENTRYPOINT ["/dns-tool"]

# The last stage is what is built when none is named.
FROM scratch
COPY --from=build /out/dns-tool /dns-tool
# Clients come from outside of the container's loopback, which is the default. Published ports reach a container by IPv4,
# those of the host's IPv6 addresses included; :: as well would fail where there is no IPv6, as it mostly is not in
# containers. It stands in the environment, so that arguments and an environment of docker run add to it, and take its
# place only where they say --address or DNS_TOOL_ADDRESS themselves.
ENV DNS_TOOL_ADDRESS=0.0.0.0
# Docker and containerd 2 let every user of a container listen on port 53; src/guide/containers.md says what to do where that is not so.
USER 65532:65532
EXPOSE 53/udp 53/tcp
# The resolver is asked for the root's name servers once in the six days that their TTL is; else they come from the cache,
# also while the resolver is away. So this fails when dns-tool does not answer, and when it has nothing to answer with,
# but not because of an outage that clients do not notice either: being started again would cost them the cache. Only
# images in Docker's format have it (podman build --format docker).
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s CMD ["/dns-tool", "query", ".", "NS"]
ENTRYPOINT ["/dns-tool"]
