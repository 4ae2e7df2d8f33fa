package doctor

// settings looks at what the administrator can switch in the namespace.
func (d *doctor) settings() {
	d.onOff("counters", "net.netfilter.nf_conntrack_acct", "flows count packets and bytes", "counters are absent",
		"CONFIG_NF_CONNTRACK")
	d.onOff("timestamps", "net.netfilter.nf_conntrack_timestamp", "flows know when they began",
		"start, stop and age are absent", "CONFIG_NF_CONNTRACK_TIMESTAMP")

	const events = "net.netfilter.nf_conntrack_events"
	if n, ok, err := setting(events); err != nil {
		d.unknown("event policy", err)
	} else if ok {
		switch n {
		case 0:
			d.add(Warn, "event policy", "sysctl -w "+events+"=2", "no events are sent: %s=0", events)
		case 1:
			d.add(OK, "event policy", "", "all flows send events: %s=1", events)
		default:
			d.add(OK, "event policy", "", "flows that begin while somebody listens send events, older ones do "+
				"not: %s=%d", events, n)
		}
	}
	d.capacity()
}

// onOff reports a setting that is 0 or 1.
func (d *doctor) onOff(check, name, on, off, option string) {
	n, ok, err := setting(name)
	switch {
	case err != nil:
		d.unknown(check, err)
	case !ok:
		d.add(Warn, check, "a kernel with "+option, "%s: this kernel has no %s", off, name)
	case n == 0:
		d.add(Warn, check, "sysctl -w "+name+"=1 (it holds for flows that begin then)", "%s: %s=0", off, name)
	default:
		d.add(OK, check, "", "%s: %s=%d", on, name, n)
	}
}

// capacity reports how full the table is, and how long its hash chains are.
func (d *doctor) capacity() {
	const check, name = "table size", "net.netfilter.nf_conntrack_max"
	most, ok, err := setting(name)
	if err != nil || !ok {
		return // of no namespace's own, and not shown in it
	}
	count, _, err := setting("net.netfilter.nf_conntrack_count")
	if err != nil {
		d.unknown(check, err)
		return
	}
	if most > 0 && count >= most/10*9 {
		d.add(Warn, check, "sysctl -w "+name+"=… in the initial namespace",
			"%d of %d flows: new connections are dropped when it is full", count, most)
	} else {
		d.add(OK, check, "", "%d of %d flows", count, most)
	}
	if buckets, ok, _ := setting("net.netfilter.nf_conntrack_buckets"); ok && buckets > 0 {
		if most/buckets > 8 {
			d.add(Warn, "hash table", "sysctl -w net.netfilter.nf_conntrack_buckets=… in the initial namespace",
				"%d buckets for up to %d flows: lookups get slow as it fills", buckets, most)
		} else {
			d.add(OK, "hash table", "", "%d buckets", buckets)
		}
	}
}
