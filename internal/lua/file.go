package lua

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"nfctl/internal/value"
)

// biggestScript bounds what is read as one script or module.
const biggestScript = 16 << 20

// readScript reads a script. A rule's is read again on SIGHUP, so it must be a
// file; any other may also be a pipe, as shells make them of <(…). Folders, and
// what goes on without end, are a value.Error.
func readScript(path string, onlyFile bool) ([]byte, error) {
	mode := os.O_RDONLY
	if onlyFile {
		mode |= unix.O_NONBLOCK // a pipe must not keep us waiting
	}
	f, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir() || onlyFile && !info.Mode().IsRegular():
		return nil, &value.Error{What: "Lua script", Text: path, Valid: "a file; this is " + kindOf(info.Mode())}
	}
	return readAll(f, path)
}

func kindOf(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "a folder"
	case m&os.ModeNamedPipe != 0:
		return "a pipe"
	case m&os.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}

// readAll reads a script from r, whose name is for errors.
func readAll(r io.Reader, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, biggestScript+1))
	if err == nil && len(b) > biggestScript {
		err = &value.Error{What: "Lua script", Text: name, Valid: fmt.Sprintf("at most %d MiB", biggestScript>>20)}
	}
	return b, err
}
