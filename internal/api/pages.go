package api

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // for the two files below
	"encoding/base64"
	"net/http"
)

// What describes the API: generated from openapi.yaml and the code by make openapi.
var (
	//go:embed openapi.json
	openapiJSON []byte
	//go:embed docs.html
	docsHTML []byte
)

// docsPolicy is the policy of every answer, but for the page's own style.
var docsPolicy = []string{headers["Content-Security-Policy"][0] + "; style-src 'sha256-" + styleHash(docsHTML) + "'"}

// styleHash is the SHA-256 of the text of the page's only style element.
func styleHash(page []byte) string {
	_, rest, _ := bytes.Cut(page, []byte("<style>"))
	style, _, _ := bytes.Cut(rest, []byte("</style>"))
	sum := sha256.Sum256(style)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// openapi answers GET /openapi.json.
func (a *API) openapi(w http.ResponseWriter, _ *http.Request) *failure {
	writeJSON(w, openapiJSON)
	return nil
}

// docs answers GET /docs.
func (a *API) docs(w http.ResponseWriter, _ *http.Request) *failure {
	h := w.Header()
	h["Content-Security-Policy"] = docsPolicy
	h.Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(docsHTML) // the client may be gone
	return nil
}
