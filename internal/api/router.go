package api

import (
	"net/http"
	"strings"

	"github.com/gorilla/mux"
)

const (
	pathAPI     = "/api/"
	pathDeposit = "/api/deposit"
	pathCheck   = "/api/check/{wallet_id}"
	routeOther  = "other" // the metrics' name for what is no route
)

// Handler serves the API and, beside it, the routes that each of more adds,
// which are counted, timed and kept from panicking too, but need no key.
func (a *API) Handler(more ...func(*mux.Router)) http.Handler {
	// The path is matched as it was sent: an escaped slash is part of a
	// wallet_id (and not valid there), and "//" is no redirect.
	r := mux.NewRouter().UseEncodedPath().SkipClean(true)
	for _, add := range more {
		add(r)
	}
	_ = r.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		if path, err := route.GetPathTemplate(); err == nil && route.GetHandler() != nil {
			route.Handler(a.observe(path, route.GetHandler()))
		}
		return nil
	})
	r.Handle(pathDeposit, a.observe(pathDeposit, a.guarded(a.deposit))).Methods(http.MethodPost)
	// The empty id matches too and is told what a wallet_id is.
	r.Handle("/api/check/{wallet_id:[^/]*}", a.observe(pathCheck, a.guarded(a.check))).
		Methods(http.MethodGet, http.MethodHead)
	r.NotFoundHandler = a.observe(routeOther, a.elsewhere(func(http.ResponseWriter, *http.Request) *failure {
		return fail(codeNotFound, "there is nothing at this path")
	}))
	r.MethodNotAllowedHandler = a.observe(routeOther, a.elsewhere(func(w http.ResponseWriter, req *http.Request) *failure {
		allow := allowed(r, req)
		w.Header().Set("Allow", allow)
		return fail(codeMethod, "this path takes "+allow)
	}))
	return r
}

// handler answers a request, or says why it does not.
type handler func(http.ResponseWriter, *http.Request) *failure

// guarded runs h for clients that may pass.
func (a *API) guarded(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := a.guard.admit(w.Header(), r)
		if f == nil {
			f = h(w, r)
		}
		a.answer(w, r, f)
	})
}

// elsewhere is for what is no route: without a key nobody learns which paths
// there are below /api/.
func (a *API) elsewhere(h handler) http.Handler {
	guarded := a.guarded(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, pathAPI) {
			guarded.ServeHTTP(w, r)
			return
		}
		a.answer(w, r, h(w, r))
	})
}

func (a *API) answer(w http.ResponseWriter, r *http.Request, f *failure) {
	if f == nil {
		return
	}
	if f.cause != nil {
		a.Logger.DebugContext(r.Context(), "request failed", "code", string(f.code), "cause", f.cause)
	}
	f.write(w)
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
