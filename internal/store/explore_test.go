package store
import ("testing";"os";"fmt";"path/filepath";"maps")
func TestExplore(t *testing.T) {
	log, origin := history(t, 60000)
	ms, _ := filepath.Glob(origin+"/MANIFEST*")
	data, _ := os.ReadFile(ms[0])
	es,_ := os.ReadDir(origin); for _, e := range es { i,_ := e.Info(); t.Log(e.Name(), i.Size()) }
	try := func(what string, d []byte) {
		path := t.TempDir() + "/p"
		must(t, os.Mkdir(path, 0o750))
		for _, e := range es { 
			if e.Name() == filepath.Base(ms[0]) { must(t, os.WriteFile(path+"/"+e.Name(), d, 0o600)); continue }
			if filepath.Ext(e.Name()) == ".ldb" { must(t, os.Link(origin+"/"+e.Name(), path+"/"+e.Name())); continue}
			b, _ := os.ReadFile(origin+"/"+e.Name()); must(t, os.WriteFile(path+"/"+e.Name(), b, 0o600))
		}
		s := newStore(path, Lead)
		must(t, s.Open())
		rows, o, err := readAll(s)
		_ = s.Close()
		os.RemoveAll(path)
		if err != nil { t.Log(what, err); return }
		if o >= int64(len(log)) || !maps.Equal(rows, fold(log, o)) { t.Errorf("HOLE %s at %d", what, o) } else if o >= 0 { t.Log("ok", what, o) }
	}
	for n := range len(data) { try(fmt.Sprint("cut ", n), data[:n]) }
	for n := range len(data) { d := append([]byte(nil), data...); d[n] ^= 4; try(fmt.Sprint("flip ", n), d) }
}
