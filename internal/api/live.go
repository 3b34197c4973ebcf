package api

import (
	"net/http"
	"time"
)

// live answers GET /api/live: a text/event-stream that lasts until the client
// leaves, takes nothing for a while, or the server stops.
func (a *API) live(w http.ResponseWriter, r *http.Request) *failure {
	messages, stop, ok := a.Live.Watch()
	if !ok {
		return fail(codeBusy, "too many watch already; try again")
	}
	defer stop()
	rc := http.NewResponseController(w)
	// net/http takes a request's read deadline for the client's end while it waits
	// for the answer to be written, and there is no next request here.
	_ = rc.SetReadDeadline(time.Time{})
	h := w.Header()
	h.Set("Connection", "close")
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // a proxy that holds it back would show nothing
	stopping := stopping(r)
	for {
		select {
		case m, more := <-messages:
			if !more {
				return nil
			}
			_ = rc.SetWriteDeadline(time.Now().Add(a.stallTimeout))
			if _, err := w.Write(m); err != nil || rc.Flush() != nil {
				return nil
			}
		case <-r.Context().Done():
			return nil
		case <-stopping.Done():
			return nil
		}
	}
}
