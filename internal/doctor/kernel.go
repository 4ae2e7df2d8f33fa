package doctor

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/nft"
	"nfctl/internal/nl"
	"nfctl/internal/queue"
)

// kernel tries the kernel's options.
func (d *doctor) kernel() {
	if !d.can(unix.CAP_NET_ADMIN) {
		d.add(Unknown, "kernel options", "", "trying them takes CAP_NET_ADMIN")
		return
	}
	err := nl.InFreshNamespace(func() error {
		d.queueOptions()
		d.attach()
		d.table()
		return nil
	})
	if err == nil {
		d.flush()
		return
	}
	// No namespace of its own: what is harmless is tried here.
	d.queueOptions()
	d.add(Unknown, "kernel options", "run it with CAP_SYS_ADMIN",
		"--attach, filters and flushing are only tried in a namespace made for it: %v", err)
	if c, err := ct.Dial(); err == nil {
		if _, _, err = c.Count(); err != nil {
			d.noTable(err)
		} else {
			d.add(OK, "tracking table", "", "it can be read")
		}
		_ = c.Close()
	}
}

// lossOf says what is lost without a feature of queues.
func lossOf(feature string) string {
	switch feature {
	case "fail-open":
		return "--fail-open ends with status 6: packets that a full queue cannot take are dropped"
	case "conntrack data":
		return "--conntrack, connmark and ct.* in rules end with status 6"
	case "GSO":
		return "large segments are cut before they are queued, which is slower"
	case "user and group":
		return "--uid-gid ends with status 6"
	case "security context":
		return "--secctx ends with status 6"
	}
	return ""
}

func (d *doctor) queueOptions() {
	const check = "queues"
	features, err := queue.Features()
	switch {
	case errors.Is(err, unix.EPERM):
		d.unknown(check, err)
		return
	case err != nil:
		d.add(Fail, check, "build the kernel with CONFIG_NETFILTER_NETLINK_QUEUE, or load nfnetlink_queue",
			"a queue cannot be bound, so 'nfctl queue' does not work: %v", err)
		return
	}
	d.add(OK, check, "", "a queue can be bound")
	for _, f := range features {
		d.either(f.OK, "queues: "+f.Name, "supported", "not supported: "+lossOf(f.Name),
			"a kernel that has it: "+strings.TrimPrefix(f.Need, "needs "))
	}
}

func (d *doctor) attach() {
	const check = "--attach"
	spec, err := nft.Parse("output")
	if err == nil {
		var t *nft.Table
		if t, err = nft.Attach([]nft.Spec{spec}, nft.Queues{}, nil); err == nil {
			defer t.Close()
			how := "nf_tables' queue statement"
			if t.Compat {
				how = "the NFQUEUE target through nft_compat, since the kernel has no CONFIG_NFT_QUEUE"
			}
			if t.Owned {
				d.add(OK, check, "", "works by %s; the rules go with nfctl, even when it is killed", how)
			} else {
				d.add(Warn, check, "Linux 5.12 or later has tables with an owner",
					"works by %s; when nfctl is killed its rules stay, and drop what they queue", how)
			}
			return
		}
	}
	d.add(Warn, check, "CONFIG_NFT_QUEUE, or CONFIG_NFT_COMPAT and CONFIG_NETFILTER_XT_TARGET_NFQUEUE; queueing by a "+
		"rule of your own works all the same", "does not work: %v", err)
}

func (d *doctor) noTable(err error) {
	if errors.Is(err, unix.EPERM) {
		d.unknown("tracking table", err)
		return
	}
	d.add(Fail, "tracking table", "build the kernel with CONFIG_NF_CT_NETLINK, or load nf_conntrack_netlink",
		"it cannot be read, so 'nfctl ct' and 'nfctl expect' do not work: %v", err)
}

func (d *doctor) table() {
	f, err := ct.ProbeFeatures()
	if err != nil {
		d.noTable(err)
		return
	}
	d.add(OK, "tracking table", "", "flows can be created, read and deleted")
	d.either(f.Events, "events", "supported", "not supported: 'watch' stays silent", "CONFIG_NF_CONNTRACK_EVENTS")
	d.either(f.Mark, "connection marks", "supported", "not supported: they are 0 and cannot be set",
		"CONFIG_NF_CONNTRACK_MARK")
	d.either(f.Labels, "connection labels", "supported; the kernel stores them in namespaces that have a rule "+
		"with labels", "not supported: they are absent and cannot be set", "CONFIG_NF_CONNTRACK_LABELS")
	d.either(f.Zone, "zones", "supported", "not supported: they are 0 and cannot be set", "CONFIG_NF_CONNTRACK_ZONES")
	d.either(f.NAT, "address translation", "supported",
		"not supported: flows with --src-nat or --dst-nat cannot be created", "CONFIG_NF_NAT")
	const check = "helpers"
	if len(f.Helpers) > 0 {
		d.add(OK, check, "", "%s", strings.Join(f.Helpers, ", "))
	} else {
		d.add(Warn, check, "CONFIG_NF_CONNTRACK_FTP and the like, or user space helpers (nfct helper)",
			"none of the common ones: 'expect create' has no master to work with")
	}
	const slower = ": the same rows, slower, since nfctl checks each itself"
	d.either(f.FilterTuple, "dump filter: addresses and ports", "honoured", "not honoured"+slower, "Linux 5.8 or later")
	d.either(f.FilterMark, "dump filter: mark", "honoured", "not honoured"+slower, "")
	d.either(f.FilterStatus, "dump filter: status", "honoured", "not honoured"+slower, "Linux 5.15 or later")
	d.either(f.FilterZone, "dump filter: zone", "honoured", "not honoured"+slower, "Linux 6.8 or later")
}

// flush tries by what the kernel can be asked to delete entries.
func (d *doctor) flush() {
	for _, p := range []struct {
		name   string
		family bool
		k      ct.KernelFilter
	}{
		{name: "family", family: true},
		{name: "mark", k: ct.KernelFilter{Mark: 1, MarkMask: 1}},
		{name: "zone", k: ct.KernelFilter{Zone: 1}},
	} {
		check := "flush filter: " + p.name
		ok, err := ct.CanFlush(p.family, p.k)
		if err != nil {
			d.unknown(check, err)
			continue
		}
		d.either(ok, check, "honoured", "not honoured, this kernel would delete more than asked for: nfctl deletes "+
			"entry by entry instead", "")
	}
}
