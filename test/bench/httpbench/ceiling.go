package httpbench

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/mux"
)

// What the ceiling answers: the API's answers, byte for byte but for their numbers.
var (
	depositAnswer = []byte(`{"code":200,"data":null,"message":"success"}`)
	checkAnswer   = []byte(`{"wallet_id":"load-1234","balance":1234.56,"above_threshold":true}`)
	headers       = http.Header{
		"Cache-Control":                {"no-store"},
		"Content-Security-Policy":      {"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"},
		"Content-Type":                 {"application/json"},
		"Cross-Origin-Resource-Policy": {"same-origin"},
		"Referrer-Policy":              {"no-referrer"},
		"X-Content-Type-Options":       {"nosniff"},
	}
	position = []string{"3:1234567"}
)

// Ceiling is the least that an API in Go does: net/http and gorilla/mux, the body
// read and parsed as JSON, and an answer of the API's bytes. It keeps nothing.
func Ceiling() http.Handler {
	r := mux.NewRouter()
	r.HandleFunc("/api/deposit", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var d struct {
			WalletID string      `json:"wallet_id"`
			Amount   json.Number `json:"amount"`
		}
		if err == nil {
			err = json.Unmarshal(body, &d)
		}
		if err != nil || d.WalletID == "" || d.Amount == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header()["X-Deposit-Position"] = position
		answer(w, depositAnswer)
	}).Methods(http.MethodPost)
	r.HandleFunc("/api/check/{wallet_id}", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, checkAnswer)
	}).Methods(http.MethodGet)
	return r
}

func answer(w http.ResponseWriter, body []byte) {
	h := w.Header()
	for name, value := range headers {
		h[name] = value
	}
	_, _ = w.Write(body) // the client may be gone
}

// Serve serves the ceiling on addr, host:port, until ctx is done. It is the work
// of a process of its own, so that it shares the machine as the API does.
func Serve(ctx context.Context, addr string) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: Ceiling(), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
