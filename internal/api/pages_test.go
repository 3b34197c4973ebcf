package api_test

import (
	"crypto/sha256"
	"encoding/base64"
	"os"
	"strings"
	"testing"
)

// What describes the API is open, also where keys are needed, and the page keeps to
// the policy of every answer: its one style has its hash there, and it fetches and
// runs nothing.
func TestPages(t *testing.T) {
	h := newWorld().handler(t, keys("k"), limit(1))
	for range 3 { // no rate limit either
		res, body := do(h, request("GET", "/openapi.json", ""))
		if want, _ := os.ReadFile("openapi.json"); res.StatusCode != 200 || body != string(want) {
			t.Fatalf("%d, %d bytes", res.StatusCode, len(body))
		}
		wantHeader(t, res, "Content-Type", "application/json")
		wantSafe(t, res)
	}
	res, body := do(h, request("GET", "/docs", ""))
	wantHeader(t, res, "Content-Type", "text/html; charset=utf-8")
	wantHeader(t, res, "X-Content-Type-Options", "nosniff")
	_, style, _ := strings.Cut(body, "<style>")
	style, rest, _ := strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	wantHeader(t, res, "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "+
		"style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
	for _, no := range []string{"<script", "<style", "style=", "src=", "<link", "@import", "url(", "http://", "https://"} {
		if strings.Contains(rest, no) || strings.Contains(style, no) {
			t.Errorf("the page has %s", no)
		}
	}
	if res.StatusCode != 200 || len(body) > 100<<10 {
		t.Errorf("%d, %d bytes", res.StatusCode, len(body))
	}
}
