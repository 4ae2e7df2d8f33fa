package main

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
	"nfctl/internal/queue"
	"nfctl/internal/serve"
	"nfctl/internal/table"
)

// hintFor says what to do about err, or "".
func hintFor(err error, code int) string {
	var status *statusError
	var marks *serve.MarksError
	if errors.As(err, &status) && status.hint != "" {
		return status.hint
	}
	switch {
	case errors.As(err, &marks):
		return marks.Hint
	case errors.Is(err, table.ErrEnded):
		return "--or-update follows a stream of events: it deletes the flows that have ended"
	case errors.Is(err, table.ErrNoHelper):
		return "delete it ('nfctl ct delete') and give it a helper when it is made: by a rule, or by --create-master"
	case errors.Is(err, queue.ErrBusy):
		return "end that program, or take another number; 'nfctl queue list' shows who holds which"
	case code == exitPermission:
		var path *os.PathError
		if errors.As(err, &path) {
			return "needs the right to read or write that file; try sudo"
		}
		var raw *queue.RawError
		if errors.As(err, &raw) {
			return "what this host sends waits as copies, and 'duplicate' makes some: that needs CAP_NET_RAW; " +
				"packets that wait at input or forward do not"
		}
		var op *nl.OpError
		if errors.As(err, &op) && strings.HasPrefix(op.Object, "network namespace ") {
			return "needs the right to read the namespace's file, and CAP_SYS_ADMIN to enter it; try sudo"
		}
		return "needs CAP_NET_ADMIN in this network namespace; try sudo, or setcap cap_net_admin+ep on nfctl"
	case errors.Is(err, unix.ENOBUFS):
		return "messages were lost; raise --buffer or ask for less"
	case errors.Is(err, unix.EMFILE):
		return "the limit of open files is reached: raise it with ulimit -n, or ask for less at once"
	case code == exitNotSupported:
		return "'nfctl doctor' shows what this kernel can do"
	case errors.Is(err, unix.ENOSPC):
		var op *nl.OpError
		if errors.As(err, &op) {
			return "connection labels can be stored only when a rule of this network namespace uses them, as " +
				"iptables " +
				"-m connlabel or nft ct label set"
		}
	}
	return ""
}
