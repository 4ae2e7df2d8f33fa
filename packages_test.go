package nfctl_test

import (
	"bytes"
	"errors"
	"fmt"
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

// TestPackages makes the packages twice, which gives the same bytes, has lintian look at
// Debian's, and installs, runs, upgrades and removes it on Debian 12 and 13, without
// systemd and under it. Their base systems are made once, below the user's cache folder.
// RPM does the same in a root of its own; of apk and ipk, whose programs Debian lacks,
// the contents are looked at.
func TestPackages(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("installing packages takes root")
	}
	if _, err := exec.LookPath("dpkg"); err != nil || !slices.Contains([]string{"amd64", "arm64"}, runtime.GOARCH) {
		t.Skip("no Debian of a processor that packages are tested on")
	}
	nstest.Need(t, "debootstrap", "lintian", "chroot", "systemd-nspawn", "rpm")
	dir := t.TempDir()
	packages := func(version, out, formats string) {
		script(t, []string{"VERSION=" + version, "ARCHES=" + runtime.GOARCH, "FORMATS=" + formats, "IPK_ARCH=",
			"OUT=" + filepath.Join(dir, out), "SOURCE_DATE_EPOCH=1767355200"}, "scripts/packages.sh")
	}
	one := func(out, format string) string {
		found, err := filepath.Glob(filepath.Join(dir, out, "*."+format))
		if err != nil || len(found) == 0 {
			t.Fatalf("no %s: %v", format, err)
		}
		return found[0]
	}
	packages("0.0.9", "old", "deb rpm")
	packages("0.1.0-dev", "new", "deb rpm apk ipk")
	packages("0.1.0-dev", "again", "deb rpm apk ipk")
	script(t, nil, "diff", "-r", filepath.Join(dir, "new"), filepath.Join(dir, "again"))
	older, newer := one("old", "deb"), one("new", "deb")
	script(t, nil, "lintian", "--fail-on", "error", "--allow-root", newer)
	t.Run("rpm", func(t *testing.T) {
		t.Log(script(t, nil, "sh", "-exc", lifeRPM, filepath.Join(dir, "rpm"), one("old", "rpm"), one("new", "rpm")))
	})
	t.Run("apk", func(t *testing.T) { t.Log(script(t, nil, "bash", "-exc", lookAPK, dir, one("new", "apk"))) })
	t.Run("ipk", func(t *testing.T) { t.Log(script(t, nil, "bash", "-exc", lookIPK, dir, one("new", "ipk"))) })
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			base := filepath.Join(cache, "nfctl-test", suite+"-systemd")
			if _, err := os.Stat(base); errors.Is(err, fs.ErrNotExist) {
				fresh := base + ".new"
				if err := errors.Join(os.RemoveAll(fresh), os.MkdirAll(fresh, 0o755)); err != nil {
					t.Fatal(err)
				}
				c := exec.Command("debootstrap", "--variant=minbase",
					"--include=systemd-sysv,dbus,iptables,iproute2", suite, fresh, mirror())
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

			for name, text := range map[string]string{
				"/life.sh": service, "/etc/systemd/system/life.service": serviceUnit,
			} {
				if err := os.WriteFile(system+name, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			c := exec.Command("timeout", "-k", "5", "120", "systemd-nspawn", "-q", "-D", system, "--boot",
				"-M", fmt.Sprintf("nfctl-%s-%d", suite, os.Getpid()),
				"--private-network", "--register=no", "--keep-unit", "systemd.unit=life.service")
			boot, err := c.CombinedOutput()
			said, _ := os.ReadFile(system + "/life.log")
			t.Logf("%s", said)
			if err != nil || !bytes.HasSuffix(said, []byte("the end\n")) {
				t.Fatalf("services: %v\n%s", err, boot)
			}
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

// serviceUnit runs service when a container has booted, and ends the container with its
// status.
const serviceUnit = `[Unit]
Requires=basic.target
Wants=dbus.service
After=basic.target dbus.service
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
ExecStart=/bin/bash -ex /life.sh
StandardOutput=truncate:/life.log
StandardError=append:/life.log
TimeoutStartSec=100
`

// service goes the way of docs/install.md from a package to running services, and looks
// at what arrives.
const service = `dpkg -i /older.deb
nfctl doctor || true
echo 'drop udp > :1900' >/etc/nfctl/queue-5.rules
nfctl queue --rules /etc/nfctl/queue-5.rules --check
systemctl enable --now nfctl-queue@5 nfctl-ct-watch
ip link set lo up
iptables -A INPUT -m conntrack --ctstate INVALID
iptables -A INPUT -p udp -j NFQUEUE --queue-num 5 --queue-bypass
arrived() { awk '/^Udp: [0-9]/ { print $3 }' /proc/net/snmp; } # those that no port took
send() { for p; do echo x >/dev/udp/127.0.0.1/$p; done; }
# The first is dropped, the second accepted: when that has come, both are decided.
queued() { send $1 $2; until test "$(arrived)" = $3; do sleep 0.1; done; }
queued 1900 1901 1
pid=$(systemctl show -P MainPID nfctl-queue@5)
grep -q '^CapEff:.*0000000000001000$' /proc/$pid/status
! grep -q '^Uid:.0' /proc/$pid/status
echo 'drop udp > :1901' >/etc/nfctl/queue-5.rules
systemctl reload nfctl-queue@5
queued 1901 1900 2
until journalctl -o cat -u nfctl-ct-watch | grep '"dport":1900'; do sleep 0.1; done
# An upgrade leaves the service as it is, and a restart brings the new program.
dpkg -i /newer.deb
test "$(systemctl show -P MainPID nfctl-queue@5)" = "$pid"
queued 1901 1900 3
systemctl daemon-reload
systemctl restart nfctl-queue@5
test "$(/proc/$(systemctl show -P MainPID nfctl-queue@5)/exe version | cut -d, -f1)" = "nfctl 0.1.0-dev"
queued 1901 1900 4
systemctl disable --now nfctl-queue@5 nfctl-ct-watch
send 1900 1901
test "$(arrived)" = 6 # bypass
dpkg -r nfctl
test -s /etc/nfctl/queue-5.rules
echo the end
`

// lifeRPM: the older and the newer package in a root of their own. Debian's rpm says that
// it is not for Debian.
const lifeRPM = `exec 2>&1
mkdir -p "$0"
rpm --root "$0" --initdb
rpm --root "$0" -i "$1"
test "$("$0/usr/bin/nfctl" version | cut -d, -f1)" = "nfctl 0.0.9"
echo 'drop udp > :1900' >"$0/etc/nfctl/queue-5.rules"
rpm --root "$0" -U "$2"
test "$("$0/usr/bin/nfctl" version | cut -d, -f1)" = "nfctl 0.1.0-dev"
rpm --root "$0" -V nfctl
test "$(rpm -qp --qf '%{BUILDHOST}' "$2" 2>/dev/null)" = localhost
rpm --root "$0" -e nfctl
test ! -e "$0/usr/bin/nfctl"
test -s "$0/etc/nfctl/queue-5.rules"
`

// lookAPK: two gzip streams, of which the first says what the second must be.
const lookAPK = `exec 2>&1
mkdir "$0/apk"
cd "$0/apk"
tar --warning=no-unknown-keyword -xzf "$1"
test "$(./usr/bin/nfctl version | cut -d, -f1)" = "nfctl 0.1.0-dev"
grep -x "arch = $(uname -m)" .PKGINFO
grep -x 'pkgver = 0.1.0_pre-r1' .PKGINFO
test -f usr/lib/systemd/system/nfctl-queue@.service
sum=$(sed -n 's/^datahash = //p' .PKGINFO)
for at in $(LC_ALL=C grep -abo $'\x1f\x8b\x08' "$1" | cut -d: -f1); do
	[ "$(tail -c +$((at + 1)) "$1" | sha256sum | cut -d' ' -f1)" != "$sum" ] || exit 0
done
echo "no part of the package has the sum $sum"
exit 1
`

// lookIPK: a tar of two tars, as opkg reads it.
const lookIPK = `exec 2>&1
mkdir "$0/ipk"
cd "$0/ipk"
test "$(tar -tzf "$1" | tr '\n' ' ')" = "./debian-binary ./control.tar.gz ./data.tar.gz "
tar -xzf "$1"
test "$(cat debian-binary)" = 2.0
tar -xzf control.tar.gz
name=${1%.ipk}
grep -x "Architecture: ${name#*-1_}" control
grep -x 'Version: 0.1.0~dev-1' control
tar -xzf data.tar.gz
test "$(./usr/bin/nfctl version | cut -d, -f1)" = "nfctl 0.1.0-dev"
test -d etc/nfctl
test ! -e usr/share/man
`
