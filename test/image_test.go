//go:build linux

package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// image is what the Dockerfile says of its last stage.
type image struct {
	env         []string
	user        string
	volume      string
	command     []string
	runs        [][2]string // commands of the first stage, each with its folder
	copies      [][2]string // from the first stage into the last
	fromContext []string    // into the first stage, from the folder of the Dockerfile
}

// dockerfile reads ../Dockerfile. An instruction that it does not know fails the test:
// what the test does is what the file says.
func dockerfile(t *testing.T) image {
	t.Helper()
	var im image
	stage := 0
	text := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(readRepo(t, "Dockerfile"), "")
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		instruction, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		words := strings.Fields(rest)
		list := func() (l []string) {
			if err := json.Unmarshal([]byte(rest), &l); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			return l
		}
		switch {
		case instruction == "":
		case instruction == "FROM":
			stage++
		case stage == 1 && instruction == "WORKDIR":
		case stage == 1 && instruction == "COPY":
			im.fromContext = append(im.fromContext, words[:len(words)-1]...)
		case stage == 1 && instruction == "RUN":
			im.runs = append(im.runs, [2]string{rest, ".."})
		case stage == 2 && instruction == "COPY" && len(words) == 3 && words[0] == "--from=build":
			im.copies = append(im.copies, [2]string{words[1], words[2]})
		case stage == 2 && instruction == "ENV":
			im.env = append(im.env, words...)
		case stage == 2 && instruction == "USER":
			im.user = rest
		case stage == 2 && instruction == "VOLUME":
			im.volume = rest
		case stage == 2 && instruction == "EXPOSE":
		case stage == 2 && (instruction == "ENTRYPOINT" || instruction == "CMD"):
			im.command = append(im.command, list()...)
		default:
			t.Fatalf("the test does not know %s in stage %d: teach it", instruction, stage)
		}
	}
	if stage != 2 || im.user == "" || im.volume == "" || len(im.command) == 0 {
		t.Fatalf("not understood: %+v", im)
	}
	return im
}

// build does what the Dockerfile does, in folders of the test, and returns what would be
// the root of a container.
func (im image) build(t *testing.T) string {
	t.Helper()
	stage, root := t.TempDir(), filepath.Join(t.TempDir(), "root")
	for _, run := range im.runs {
		if run[0] == "go mod download" { // the build says what it lacks
			continue
		}
		cmd := exec.Command("/bin/sh", "-c", strings.ReplaceAll(run[0], " /out/", " "+stage+"/out/"))
		cmd.Dir = run[1]
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("RUN %s: %v\n%s", run[0], err, said)
		}
	}
	must(t, os.Mkdir(root, 0o755))
	must(t, os.Chmod(filepath.Dir(root), 0o755))
	for _, c := range im.copies {
		from, to := c[0], filepath.Join(root, c[1])
		if strings.HasPrefix(from, "/out/") {
			from = stage + from
		}
		if strings.HasSuffix(c[1], "/") && c[1] != "/" {
			must(t, os.MkdirAll(to, 0o755))
		}
		info, err := os.Stat(from)
		must(t, err)
		if info.IsDir() {
			from += "/."
		}
		if said, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Fatalf("COPY %v: %v\n%s", c, err, said)
		}
	}
	// As docker run does.
	must(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "etc/hosts"), []byte("127.0.0.1\tlocalhost\n"), 0o644))
	return root
}

// TestImage runs the image's default command as a container would: its root, which its
// user cannot write to, its environment and no more, and a network of its own, where it is
// reached under another address than 127.0.0.1.
func TestImage(t *testing.T) {
	if inImage() {
		inContainer(t)
		return
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("chroot takes root")
		}
		t.Skip("chroot takes root")
	}
	im := dockerfile(t)
	for _, path := range im.fromContext {
		if !strings.Contains("\n"+readRepo(t, ".dockerignore"), "\n!"+path+"\n") {
			t.Errorf(".dockerignore keeps %s out, which the Dockerfile copies", path)
		}
	}
	root := im.build(t)
	volume := filepath.Join(root, im.volume)
	mode, err := os.Stat(volume)
	must(t, err)
	for _, user := range []string{im.user, "10001:0"} {
		t.Run(user, func(t *testing.T) {
			must(t, os.RemoveAll(volume)) // a new volume has the mode of the folder in the image
			must(t, os.Mkdir(volume, 0))
			must(t, os.Chmod(volume, mode.Mode()))
			again := exec.Command(os.Args[0], "-test.run=^TestImage$", "-test.v")
			again.Env = append(os.Environ(), "IMAGE_ROOT="+root, "IMAGE_USER="+user)
			again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
			if said, err := again.CombinedOutput(); err != nil || !bytes.Contains(said, []byte("--- PASS: TestImage")) {
				t.Fatalf("%v\n%s", err, said)
			}
			entries, err := os.ReadDir(volume)
			if err != nil || !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == "kafka" }) {
				t.Errorf("the volume holds %v, %v: no log", entries, err)
			}
		})
	}
}

// inContainer is the part of TestImage that has the network to itself.
func inContainer(t *testing.T) {
	up(t, "lo")
	im := dockerfile(t)
	var uid, gid uint32
	_, err := fmt.Sscanf(os.Getenv("IMAGE_USER"), "%d:%d", &uid, &gid)
	must(t, err)
	var log bytes.Buffer
	c := exec.Command(im.command[0], im.command[1:]...)
	c.Dir, c.Env, c.Stdout, c.Stderr = "/", im.env, &log, &log
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: os.Getenv("IMAGE_ROOT"), Credential: &syscall.Credential{Uid: uid, Gid: gid}, Pdeathsig: syscall.SIGKILL}
	// Its path is one in the chroot.
	c.Path, c.Err = im.command[0], nil
	must(t, c.Start())
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	fail := func(format string, args ...any) {
		_ = c.Process.Kill()
		<-ended
		t.Fatalf(format+"\n%s", append(args, &log)...)
	}
	const outside = "http://127.0.0.2:8000" // what listens on 127.0.0.1 alone is not there
	client := &http.Client{Timeout: 5 * time.Second}
	answer := func(method, path, body string) string {
		req, err := http.NewRequest(method, outside+path, strings.NewReader(body))
		must(t, err)
		res, err := client.Do(req)
		if err != nil {
			return err.Error()
		}
		defer func() { _ = res.Body.Close() }()
		text, err := io.ReadAll(res.Body)
		return fmt.Sprint(res.StatusCode, " ", strings.TrimSpace(string(text)), err)
	}
	got := ""
	for end := time.Now().Add(time.Minute); !strings.HasPrefix(got, "200 "); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			fail("deposit: %s", got)
		}
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v\n%s", err, &log)
		default:
		}
		got = answer(http.MethodPost, "/api/deposit", `{"wallet_id":"w","amount":3500,"idempotency_key":"1"}`)
	}
	if got := answer(http.MethodGet, "/api/check/w", ""); !strings.Contains(got, `"balance":3500`) {
		fail("check: %s", got)
	}
	must(t, c.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-ended:
		if err != nil {
			t.Fatalf("at its end: %v\n%s", err, &log)
		}
	case <-time.After(20 * time.Second):
		fail("it does not end")
	}
}

// up switches a network device of a new network namespace on.
func up(t *testing.T, device string) {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	must(t, err)
	defer func() { _ = unix.Close(s) }()
	req, err := unix.NewIfreq(device)
	must(t, err)
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(req))); errno != 0 {
		t.Fatalf("%s: %v", device, errno)
	}
}
