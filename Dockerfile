# One image for every service; the command chooses which (see docker-compose.yml). Alone,
# docker run -p 127.0.0.1:8000:8000 runs the whole suite with the embedded broker.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY internal internal
# Everyone may make folders in /state and nobody may touch another's, as in /tmp: so the
# image works under any user, and a new volume mounted there has the same mode.
RUN mkdir -p -m 755 /out/root && mkdir -m 1777 /out/root/state \
 && CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /out/root/coinbit ./cmd

# Nothing but the binary, the place for its state and the certificate authorities (for
# Kafka over TLS).
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/root /
# PORT is open to the container's network: what of it is published, docker run -p says.
ENV STATE_DIR=/state DATA_DIR=/state/kafka PORT=0.0.0.0:8000
VOLUME /state
EXPOSE 8000
USER 65532:65532
ENTRYPOINT ["/coinbit"]
CMD ["-service=all"]
