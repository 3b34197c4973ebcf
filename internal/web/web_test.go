package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/mux"
)

var handler = sync.OnceValue(func() http.Handler {
	r := mux.NewRouter()
	Routes(r)
	return r
})

func get(t *testing.T, at string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, at, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	handler().ServeHTTP(w, r)
	return w.Result()
}

// files are all of the page's, by their paths in the program.
func files(t *testing.T) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	err := fs.WalkDir(static, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		all[strings.TrimPrefix(name, "static/")], err = static.ReadFile(name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func body(t *testing.T, res *http.Response) []byte {
	t.Helper()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Every file comes as it is, with what a browser needs to know of it.
func TestFiles(t *testing.T) {
	for name, want := range files(t) {
		at := "/" + strings.TrimSuffix(name, "index.html")
		res := get(t, at)
		if got := body(t, res); res.StatusCode != http.StatusOK || !bytes.Equal(got, want) {
			t.Errorf("%s: %d, %d bytes, want %d", at, res.StatusCode, len(got), len(want))
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": policy, "Cache-Control": "no-cache", "Vary": "Accept-Encoding",
			"Content-Type": types[path.Ext(name)], "Content-Encoding": "",
		} {
			if got := res.Header.Get(name); got != want || name == "Content-Type" && got == "" {
				t.Errorf("%s: %s is %q, want %q", at, name, got, want)
			}
		}
		small := get(t, at, "Accept-Encoding", "br, gzip;q=0.8")
		if small.Header.Get("Content-Encoding") == "gzip" {
			r, err := gzip.NewReader(small.Body)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: compressed it is something else: %v", at, err)
			}
		} else if path.Ext(name) != ".woff2" && len(want) > 1000 {
			t.Errorf("%s is not compressed", at)
		}
		if a, b := res.Header.Get("ETag"), small.Header.Get("ETag"); small.Header.Get("Content-Encoding") != "" && a == b {
			t.Errorf("%s: one ETag for two answers", at)
		}
		known := get(t, at, "Accept-Encoding", "gzip", "If-None-Match", small.Header.Get("ETag"))
		if known.StatusCode != http.StatusNotModified || len(body(t, known)) != 0 {
			t.Errorf("%s: %d to who has it", at, known.StatusCode)
		}
	}
	for _, at := range []string{"/index.html", "/js", "/vendor/", "/nothing", "/../web.go"} {
		if res := get(t, at); res.StatusCode == http.StatusOK {
			t.Errorf("%s is there", at)
		}
	}
	if res := get(t, "/", "Accept-Encoding", "gzip;q=0, deflate"); res.Header.Get("Content-Encoding") != "" {
		t.Error("compressed for who refuses that")
	}
}

// All that a first visit transfers; the stream's first message is below 20 KB.
func TestSize(t *testing.T) {
	total := 0
	for name := range files(t) {
		if path.Ext(name) == ".txt" { // licences, which the page does not load
			continue
		}
		n := len(body(t, get(t, "/"+strings.TrimSuffix(name, "index.html"), "Accept-Encoding", "gzip")))
		t.Logf("%6d %s", n, name)
		total += n
	}
	t.Logf("%6d in all", total)
	if total > 180_000 {
		t.Errorf("a first view transfers %d bytes", total)
	}
}

var (
	absolute = regexp.MustCompile(`(?i)(https?:)?//[a-z0-9-]+\.[a-z]`)
	notice   = regexp.MustCompile(`^/\*![^*]*\*/`) // of who wrote it
	inline   = regexp.MustCompile(`(?i)<style|<script>|\sstyle=|\son[a-z]+=|javascript:|<script(?: [^>]*)?>[^<]`)
)

// No file names another host, and the page's HTML needs nothing that its policy forbids.
func TestNothingFromElsewhere(t *testing.T) {
	for name, data := range files(t) {
		if ext := path.Ext(name); ext == ".txt" || ext == ".woff2" {
			continue
		}
		data = notice.ReplaceAll(data, nil)
		for _, at := range absolute.FindAllIndex(data, -1) {
			if text := string(data[at[0]:min(len(data), at[0]+40)]); !strings.HasPrefix(text, "http://www.w3.org/2000/svg") { // a name, not an address
				t.Errorf("%s names %q", name, text)
			}
		}
	}
	if bad := inline.Find(files(t)["index.html"]); bad != nil {
		t.Errorf("index.html has %q", bad)
	}
	for _, bad := range []string{"//cdn.example.com", "https://example.com"} {
		if !absolute.MatchString(bad) {
			t.Errorf("%s would not be found", bad)
		}
	}
}

// What index.html and the modules refer to is there.
func TestReferences(t *testing.T) {
	all := files(t)
	for name, refs := range map[string]*regexp.Regexp{
		"index.html": regexp.MustCompile(`(?:href|src)="([^"#]+)"`),
		"js":         regexp.MustCompile(`from "\./([^"]+)"`),
		"base.css":   regexp.MustCompile(`url\("([^"]+)"\)`),
	} {
		for file, data := range all {
			if !strings.HasPrefix(file, name) {
				continue
			}
			for _, m := range refs.FindAllSubmatch(data, -1) {
				if ref := path.Join(path.Dir(file), string(m[1])); all[ref] == nil {
					t.Errorf("%s refers to %s", file, ref)
				}
			}
		}
	}
}

// What vendor.sh fetched is as it was; nobody mends it by hand.
func TestVendor(t *testing.T) {
	list, err := os.ReadFile("vendor.sha256")
	if err != nil {
		t.Fatal(err)
	}
	all, n := files(t), 0
	for line := range strings.Lines(string(list)) {
		want, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		sum := sha256.Sum256(all["vendor/"+name])
		if got := hex.EncodeToString(sum[:]); got != want {
			t.Errorf("%s has %s, want %s: run make vendor-web", name, got, want)
		}
		n++
	}
	for name := range all {
		if strings.HasPrefix(name, "vendor/") {
			n--
		}
	}
	if n != 0 {
		t.Error("vendor.sha256 and static/vendor differ in number")
	}
}
