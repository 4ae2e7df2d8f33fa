package nfctl_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

// script runs a program of the repository and returns what it printed.
func script(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), env...)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// tree lists the files below a folder.
func tree(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, strings.TrimPrefix(path, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestInstall: make install needs no Go, takes a DESTDIR with blanks, and make
// uninstall leaves nothing but what the user put there.
func TestInstall(t *testing.T) {
	t.Parallel()
	dest := filepath.Join(t.TempDir(), "a b  c")
	nfctl := nstest.Build(t)
	run := func(target string) {
		script(t, []string{"PATH=/usr/bin:/bin", "COMPAT=1"}, "/usr/bin/make", "--no-print-directory", target,
			"BINARY="+nfctl, "DESTDIR="+dest, "PREFIX=/usr")
	}
	run("install")
	all := tree(t, dest)
	for _, want := range []string{"/usr/bin/nfctl", "/usr/bin/conntrack", "/usr/share/man/man1/nfctl-queue.1",
		"/usr/share/zsh/site-functions/_nfctl",
		"/usr/share/bash-completion/completions/nfctl", "/usr/share/fish/vendor_completions.d/nfctl.fish",
		"/usr/lib/systemd/system/nfctl-queue@.service", "/usr/share/doc/nfctl/licenses.md"} {
		if !slices.Contains(all, want) {
			t.Errorf("not installed: %s", want)
		}
	}
	if unit, err := os.ReadFile(dest + "/usr/lib/systemd/system/nfctl-queue@.service"); err != nil ||
		!strings.Contains(string(unit), "\nExecStart=/usr/bin/nfctl queue ") {
		t.Errorf("%v: the unit runs another program: %s", err, unit)
	}
	rules := dest + "/etc/nfctl/queue-5.rules"
	if err := os.WriteFile(rules, []byte("drop udp > :1900\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run("uninstall")
	if all := tree(t, dest); len(all) != 1 || all[0] != "/etc/nfctl/queue-5.rules" {
		t.Errorf("left: %q", all)
	}
}

// TestVersion: a source tree unpacked inside a repository of somebody else's does not
// take its tags.
func TestVersion(t *testing.T) {
	t.Parallel()
	outer := t.TempDir()
	inner := filepath.Join(outer, "nfctl")
	script(t, nil, "sh", "-c",
		`cd "$0" && git init -q . && git -c user.name=x -c user.email=x@example.org commit -q --allow-empty -m x && git tag v9.9.9 && mkdir -p nfctl/scripts`, outer)
	for _, name := range []string{"VERSION", "scripts/version.sh", "scripts/when.sh"} {
		script(t, nil, "cp", "-p", name, filepath.Join(inner, name))
	}
	want, err := os.ReadFile("VERSION")
	if err != nil {
		t.Fatal(err)
	}
	if got := script(t, nil, inner+"/scripts/version.sh"); got != string(want) {
		t.Errorf("version %q, want %q", got, want)
	}
	script(t, nil, "git", "init", "-q", inner)
	script(t, nil, "sh", "-c",
		`cd "$0" && git add . && git -c user.name=x -c user.email=x@example.org commit -q -m x && git tag v1.2.3`,
		inner)
	if got := script(t, nil, inner+"/scripts/version.sh"); got != "1.2.3\n" {
		t.Errorf("of the tag v1.2.3: version %q", got)
	}
}

// TestPackages makes the Debian package twice, which gives the same bytes, has lintian
// look at it, and installs, runs, upgrades and removes it on Debian 12 and 13. Their
// base systems are made once, below the user's cache folder.
func TestPackages(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("installing packages takes root")
	}
	if _, err := exec.LookPath("dpkg"); err != nil || !slices.Contains([]string{"amd64", "arm64"}, runtime.GOARCH) {
		t.Skip("no Debian of a processor that packages are tested on")
	}
	nstest.Need(t, "debootstrap", "lintian", "chroot")
	dir := t.TempDir()
	deb := func(version, out string) string {
		script(t, []string{"VERSION=" + version, "ARCHES=" + runtime.GOARCH, "FORMATS=deb",
			"OUT=" + filepath.Join(dir, out), "SOURCE_DATE_EPOCH=1767355200"}, "scripts/packages.sh")
		found, err := filepath.Glob(filepath.Join(dir, out, "*.deb"))
		if err != nil || len(found) != 1 {
			t.Fatalf("packages: %q, %v", found, err)
		}
		return found[0]
	}
	older, newer := deb("0.0.9", "old"), deb("0.1.0-dev", "new")
	again, err := os.ReadFile(deb("0.1.0-dev", "again"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(newer); err != nil || !bytes.Equal(b, again) {
		t.Errorf("packages differ from one time to the next (%v)", err)
	}
	script(t, nil, "lintian", "--fail-on", "error", "--allow-root", newer)
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			base := filepath.Join(cache, "nfctl-test", suite)
			if _, err := os.Stat(base); errors.Is(err, fs.ErrNotExist) {
				fresh := base + ".new"
				if err := errors.Join(os.RemoveAll(fresh), os.MkdirAll(fresh, 0o755)); err != nil {
					t.Fatal(err)
				}
				c := exec.Command("debootstrap", "--variant=minbase", suite, fresh, mirror())
				if out, err := c.CombinedOutput(); err != nil {
					_ = os.RemoveAll(fresh)
					if exec.Command("curl", "-sfm", "20", "-o", "/dev/null",
						mirror()+"/dists/"+suite+"/Release").Run() != nil {
						t.Skipf("no Debian mirror in reach (DEBIAN_MIRROR chooses another): %s", mirror())
					}
					t.Fatalf("debootstrap: %v\n%.4000s", err, out)
				}
				if err := os.Rename(fresh, base); err != nil {
					t.Fatal(err)
				}
			}
			system := filepath.Join(t.TempDir(), suite)
			script(t, nil, "cp", "-a", base, system)
			script(t, nil, "cp", older, system+"/older.deb")
			script(t, nil, "cp", newer, system+"/newer.deb")
			t.Log(script(t, nil, "unshare", "-mnpf", "chroot", system, "sh", "-exc", life))
		})
	}
}

func mirror() string {
	if m := os.Getenv("DEBIAN_MIRROR"); m != "" {
		return m
	}
	return "http://deb.debian.org/debian"
}

// life is what a package goes through on a system of its own.
const life = `exec 2>&1
mount -t proc proc /proc
dpkg -i /older.deb
test "$(nfctl version | cut -d, -f1)" = "nfctl 0.0.9"
# Nothing is enabled, nothing runs.
test -z "$(find /etc/systemd /etc/rc?.d -name '*nfctl*' 2>/dev/null)"
test -z "$(grep -lsx nfctl /proc/[0-9]*/comm)"
test -f /usr/lib/systemd/system/nfctl-queue@.service
grep -q '^ExecStart=/usr/bin/nfctl ' /usr/lib/systemd/system/nfctl-ct-watch.service
nfctl ct count
nfctl ct create 'tcp 10.0.0.1:1 > 10.0.0.2:2'
echo 'drop udp > :1900' >/etc/nfctl/queue-5.rules
nfctl queue --rules /etc/nfctl/queue-5.rules --check
dpkg -i /newer.deb
test "$(nfctl version | cut -d, -f1)" = "nfctl 0.1.0-dev"
test -s /etc/nfctl/queue-5.rules
dpkg --verify nfctl
dpkg -r nfctl
test ! -e /usr/bin/nfctl
test -s /etc/nfctl/queue-5.rules
dpkg --purge nfctl 2>/dev/null || true
test -z "$(dpkg-query -W -f '${Status}' nfctl 2>/dev/null)"
find / -xdev -name '*nfctl*' -not -path '/proc/*' | sort
test "$(find / -xdev -name '*nfctl*' -not -path '/proc/*')" = /etc/nfctl
`
