# One image for every service; the command chooses which (see docker-compose.yml).
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY internal internal
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /out/coinbit ./cmd \
 && mkdir -p /out/state

# Nothing but the binary and the certificate authorities (for Kafka over TLS).
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/coinbit /coinbit
# A new volume mounted here takes this directory's owner over.
COPY --from=build --chown=65532:65532 /out/state /state
ENV STATE_DIR=/state
VOLUME /state
USER 65532:65532
ENTRYPOINT ["/coinbit"]
CMD ["-service=all"]
