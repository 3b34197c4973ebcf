// Package web is the live page: files that the binary carries, and nothing else.
// What the page shows it asks the API for, like any client.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/gorilla/mux"
)

//go:embed static
var static embed.FS

// The page may load and call what is its own, and nothing from elsewhere; it has
// no script or style within its HTML, and no script can make HTML of a text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

var types = map[string]string{
	".html":  "text/html; charset=utf-8",
	".css":   "text/css; charset=utf-8",
	".js":    "text/javascript; charset=utf-8",
	".svg":   "image/svg+xml",
	".txt":   "text/plain; charset=utf-8",
	".woff2": "font/woff2",
}

// Routes adds a route for each file of the page, / for index.html.
func Routes(r *mux.Router) {
	_ = fs.WalkDir(static, "static", func(name string, d fs.DirEntry, err error) error { // an embed.FS reads as it was built
		if err != nil || d.IsDir() {
			return err
		}
		data, err := static.ReadFile(name)
		if err != nil {
			return err
		}
		at := "/" + strings.TrimPrefix(strings.TrimPrefix(name, "static/"), "index.html")
		r.Handle(at, newFile(name, data)).Methods(http.MethodGet, http.MethodHead)
		return nil
	})
}

// file is one of the page's, as it is and compressed.
type file struct {
	kind, tag   string
	plain, gzip []byte // gzip is nil where it would save nothing
}

func newFile(name string, data []byte) *file {
	sum := sha256.Sum256(data)
	f := &file{kind: types[path.Ext(name)], tag: hex.EncodeToString(sum[:12]), plain: data}
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // a level that there is
	_, _ = w.Write(data)                                  // a bytes.Buffer takes all
	_ = w.Close()
	if b.Len() < len(data)*9/10 {
		f.gzip = b.Bytes()
	}
	return f
}

// ServeHTTP answers with the file, or 304 to who has it. It may be kept, and is to
// be asked for again each time: another binary has other files at the same paths.
func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, body, tag := w.Header(), f.plain, f.tag
	h.Set("Vary", "Accept-Encoding")
	if f.gzip != nil && acceptsGzip(r) {
		body, tag = f.gzip, tag+"-gz"
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Security-Policy", policy)
	h.Set("Content-Type", f.kind)
	h.Set("ETag", fmt.Sprintf("%q", tag))
	r.Header.Del("Range") // files are small
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// acceptsGzip tells whether a client takes gzip. Who says so in a way of its own
// gets the file as it is.
func acceptsGzip(r *http.Request) bool {
	for _, c := range strings.Split(r.Header.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(c), ";")
		if strings.EqualFold(name, "gzip") && strings.TrimRight(q, "0") != "q=" && strings.TrimRight(q, "0") != "q=0." {
			return true
		}
	}
	return false
}
