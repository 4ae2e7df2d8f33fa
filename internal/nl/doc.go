// Package nl is nfctl's netlink: sockets to the kernel's netfilter subsystems,
// requests and their errors, dumps, packed batches, a receiver for hot loops,
// and network namespaces.
//
// Sockets are made by github.com/mdlayher/netlink. The library reads one
// datagram a call into fresh memory, twice asking the kernel for it; at a
// hundred thousand packets a second that is most of the work, so the paths
// that are hot here (Receiver, Batch, Dump) make their system calls on the same
// socket themselves and reuse their buffers.
//
// Numbers in netlink headers are in the machine's byte order, numbers in
// netfilter's attributes in big-endian order.
package nl

import "golang.org/x/sys/unix"

// Netfilter's netlink subsystems: the high byte of a message's type.
// Source: include/uapi/linux/netfilter/nfnetlink.h.
const (
	SubsysCt      = 1  // connection tracking
	SubsysExpect  = 2  // expectations
	SubsysQueue   = 3  // NFQUEUE
	SubsysTimeout = 8  // connection tracking timeout policies
	SubsysHelper  = 9  // user space connection tracking helpers
	SubsysTables  = 10 // nf_tables
)

// Flags of requests, from include/uapi/linux/netlink.h.
const (
	FlagAck     = unix.NLM_F_ACK
	FlagDump    = unix.NLM_F_DUMP
	FlagCreate  = unix.NLM_F_CREATE
	FlagExcl    = unix.NLM_F_EXCL
	FlagReplace = unix.NLM_F_REPLACE
	FlagAppend  = unix.NLM_F_APPEND
	FlagEcho    = unix.NLM_F_ECHO
)
