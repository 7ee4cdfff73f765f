# docker build --tag registry.keyplane.io/keyplane:0.1.0 .
#
# `make image` builds the lab's image with the same command, and the tests run that image. No test builds this file.
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build-static --release && install -D target/*/release/keyplane /out/keyplane

FROM scratch
COPY --from=build /out/keyplane /keyplane
USER 65532:65532
ENTRYPOINT ["/keyplane"]
