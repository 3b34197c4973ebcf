package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// maxClients bounds the memory of the rate limit. A client pushed out by ten
// thousand others starts with a full burst again.
const maxClients = 10_000

// client is who a bound is for: a key, or who has none by address.
type client struct {
	key  int // index, -1 for none
	addr netip.Addr
}

// guard lets known clients in, each as often as it may.
type guard struct {
	keys    [][sha256.Size]byte
	limit   rate.Limit // 0: none
	burst   int
	clients *lru.Cache[client, *rate.Limiter]
	origin  *http.CrossOriginProtection
}

func newGuard(keys []string, limit float64) (*guard, error) {
	if math.IsNaN(limit) || limit < 0 || limit > math.MaxInt32 {
		return nil, errors.New("rate limit must be from 0 to 2147483647 per second")
	}
	g := &guard{limit: rate.Limit(limit), burst: max(1, int(math.Ceil(limit))),
		origin: http.NewCrossOriginProtection()}
	for _, k := range keys {
		if k == "" {
			return nil, errors.New("an API key is empty")
		}
		g.keys = append(g.keys, sha256.Sum256([]byte(k)))
	}
	var err error
	g.clients, err = lru.New[client, *rate.Limiter](maxClients)
	return g, err
}

// admit says why r may not pass, nil when it may, and sets the headers that go
// with a refusal.
func (g *guard) admit(h http.Header, r *http.Request) *failure {
	if g.foreign(r) {
		return fail(codeCrossOrigin, "a page of another site may not do this")
	}
	c, ok := g.client(r)
	if g.limit > 0 { // also for those who try keys
		if wait := g.take(c, time.Now()); wait > 0 {
			seconds := int64((wait + time.Second - 1) / time.Second)
			h.Set("Retry-After", strconv.FormatInt(seconds, 10))
			return fail(codeRateLimited, "too many requests; try again later")
		}
	}
	if !ok {
		h.Set("WWW-Authenticate", "Bearer")
		return fail(codeUnauthorized, "a valid API key is needed: Authorization: Bearer KEY")
	}
	return nil
}

// foreign tells whether r is of a page that is not of this origin, as its browser says.
// Reads count too: such a page learns nothing from the answer, but it could take up the
// places that there are for them.
func (g *guard) foreign(r *http.Request) bool {
	if len(r.Header["Sec-Fetch-Site"]) == 0 && len(r.Header["Origin"]) == 0 {
		return false // no browser
	}
	asPost := *r
	asPost.Method = http.MethodPost
	return g.origin.Check(&asPost) != nil
}

// client is who r is from, and whether it may pass.
func (g *guard) client(r *http.Request) (client, bool) {
	key, ok := g.identify(r)
	c := client{key: key}
	if key < 0 {
		c.addr = address(r)
	}
	return c, ok
}

// identify finds the key of r, -1 for none, and tells whether r may pass. Only
// the header is looked at: a path or query ends up in logs. Its time depends on how
// many keys there are, not on what they are: hashes of equal length are
// compared, all of them.
func (g *guard) identify(r *http.Request) (int, bool) {
	if len(g.keys) == 0 {
		return -1, true
	}
	text, given, f := one(r.Header, "Authorization", codeUnauthorized)
	if !given || f != nil {
		return -1, false
	}
	scheme, token, _ := strings.Cut(text, " ")
	got := sha256.Sum256([]byte(strings.Trim(token, " ")))
	found := -1
	for i := range g.keys {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(got[:], g.keys[i][:]), i, found)
	}
	if !strings.EqualFold(scheme, "Bearer") {
		found = -1
	}
	return found, found >= 0
}

// take uses up one request of c, or says how long until there is one.
func (g *guard) take(c client, now time.Time) time.Duration {
	l, ok := g.clients.Get(c)
	if !ok {
		l = rate.NewLimiter(g.limit, g.burst)
		if earlier, ok, _ := g.clients.PeekOrAdd(c, l); ok { // a request beside us was first
			l = earlier
		}
	}
	reservation := l.ReserveN(now, 1)
	wait := reservation.DelayFrom(now)
	if wait > 0 {
		reservation.CancelAt(now)
	}
	return wait
}

// address is the peer's address; of IPv6 the network of 64 bits, which one client
// has all of. Headers that claim another are not believed: anyone can send them.
func address(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr) // net/http has it from the connection
	addr := peer.Addr().Unmap().WithZone("")
	if addr.Is6() {
		addr = netip.PrefixFrom(addr, 64).Masked().Addr()
	}
	return addr
}
