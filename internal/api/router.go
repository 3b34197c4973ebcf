package api

import (
	"cmp"
	"log/slog"
	"net/http"
	"strings"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	pathAPI      = "/api/"
	pathDeposit  = "/api/deposit"
	pathDeposits = "/api/deposits"
	pathCheck    = "/api/check/{wallet_id}"
	pathWallet   = "/api/wallets/{wallet_id}"
	pathFlags    = "/api/flags"
	pathOpenAPI  = "/openapi.json"
	pathDocs     = "/docs"
	pathLive     = "/api/live"
	routeOther   = "other" // the metrics' name for what is no route
)

// No request of ours needs a path with its query, or a number of headers, near
// these. The bytes of the headers are bounded by NewServer.
const (
	maxPath    = 2048
	maxHeaders = 100
)

// handler answers a request, or says why it does not.
type handler func(http.ResponseWriter, *http.Request) *failure

// Handler serves the API and, beside it, the routes that each of more adds,
// which are counted, timed and kept from panicking too, but need no key.
func (a *API) Handler(more ...func(*mux.Router)) http.Handler {
	return a.bounded(a.routes(more))
}

// routes are those of the API, and those that each of more adds.
func (a *API) routes(more []func(*mux.Router)) *mux.Router {
	return a.router(a.elsewhere, append([]func(*mux.Router){a.own}, more...))
}

// own are the API's routes, those that are asked most first: mux tries one after the
// other. One with a pattern has the name that the metrics know it by.
func (a *API) own(r *mux.Router) {
	read := []string{http.MethodGet, http.MethodHead}
	r.Handle(pathDeposit, a.guarded(a.deposit)).Methods(http.MethodPost)
	// The empty id matches too and is told what a wallet_id is.
	r.Handle("/api/check/{wallet_id:[^/]*}", a.guarded(a.check)).Methods(read...).Name(pathCheck)
	r.Handle("/api/wallets/{wallet_id:[^/]*}", a.guarded(a.wallet)).Methods(read...).Name(pathWallet)
	r.Handle(pathDeposits, a.guarded(a.bulk)).Methods(http.MethodPost)
	r.Handle(pathFlags, a.guarded(a.flags)).Methods(read...)
	if a.Live != nil {
		r.Handle(pathLive, a.guarded(a.live)).Methods(http.MethodGet)
	}
	// What describes the API is no secret.
	r.Handle(pathOpenAPI, a.plain(a.openapi)).Methods(read...)
	r.Handle(pathDocs, a.plain(a.docs)).Methods(read...)
}

// Admin serves the routes that each of add adds as Handler serves those beside
// the API. Registry and logger may be nil.
func Admin(registry prometheus.Registerer, logger *slog.Logger, add ...func(*mux.Router)) (http.Handler, error) {
	f, err := newFront(registry, logger)
	if err != nil {
		return nil, err
	}
	return f.bounded(f.router(f.plain, add)), nil
}

// router has the routes that each of add adds; other answers for what is none.
func (f *front) router(other func(handler) http.Handler, add []func(*mux.Router)) *mux.Router {
	// The path is matched as it was sent: an escaped slash is part of a
	// wallet_id (and not valid there), and "//" is no redirect.
	r := mux.NewRouter().UseEncodedPath().SkipClean(true)
	for _, routes := range add {
		routes(r)
	}
	_ = r.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		if path, err := route.GetPathTemplate(); err == nil && route.GetHandler() != nil {
			route.Handler(f.observe(cmp.Or(route.GetName(), path), route.GetHandler()))
		}
		return nil
	})
	r.NotFoundHandler = f.observe(routeOther, other(func(http.ResponseWriter, *http.Request) *failure {
		return fail(codeNotFound, "there is nothing at this path")
	}))
	r.MethodNotAllowedHandler = f.observe(routeOther, other(func(w http.ResponseWriter, req *http.Request) *failure {
		allow := allowed(r, req)
		w.Header().Set("Allow", allow)
		return fail(codeMethod, "this path takes "+allow)
	}))
	return r
}

// bounded refuses what is larger than any request of ours before more is done
// with it.
func (f *front) bounded(next http.Handler) http.Handler {
	refuse := func(c code, detail string) http.Handler {
		return f.observe(routeOther, f.plain(func(http.ResponseWriter, *http.Request) *failure { return fail(c, detail) }))
	}
	longPath := refuse(codeLongPath, "path and query must be at most 2048 bytes")
	manyHeaders := refuse(codeHeaders, "there must be at most 100 headers")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case len(r.RequestURI) > maxPath:
			longPath.ServeHTTP(w, r)
		case len(r.Header) > maxHeaders:
			manyHeaders.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// guarded runs h for clients that may pass.
func (a *API) guarded(h handler) http.Handler {
	return a.plain(func(w http.ResponseWriter, r *http.Request) *failure {
		if f := a.guard.admit(w.Header(), r); f != nil {
			return f
		}
		return h(w, r)
	})
}

// elsewhere is for what is no route: without a key nobody learns which paths
// there are below /api/.
func (a *API) elsewhere(h handler) http.Handler {
	guarded, open := a.guarded(h), a.plain(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, pathAPI) {
			guarded.ServeHTTP(w, r)
			return
		}
		open.ServeHTTP(w, r)
	})
}

// allowed lists the methods that the path of req takes, for the header Allow.
func allowed(router *mux.Router, req *http.Request) string {
	var methods []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		probe := *req
		probe.Method = m
		var match mux.RouteMatch
		if router.Match(&probe, &match) && match.MatchErr == nil {
			methods = append(methods, m)
		}
	}
	return strings.Join(methods, ", ")
}
