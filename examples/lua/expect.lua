#!/usr/bin/env -S nfctl lua
-- Makes an expectation: a connection that is let through as RELATED to a master
-- connection that exists already and has a conntrack helper.
--
--   nfctl lua expect.lua MASTER_SRC MASTER_SPORT MASTER_DST MASTER_DPORT DPORT [TIMEOUT] [FLAG...]
--
-- Expected is a TCP connection from any port of the master's source to port DPORT
-- of its destination, for TIMEOUT seconds (30). Flags: permanent, inactive.

require "nfct"

local src, sport, dst, dport, expected, timeout = unpack(arg, 1, 6)
if not expected then
	io.stderr:write("usage: expect.lua MASTER_SRC MASTER_SPORT MASTER_DST MASTER_DPORT DPORT [TIMEOUT] [FLAG...]\n")
	os.exit(2)
end

local function tcp(src, sport, dst, dport)
	local ct = assert(nfct.new())
	nfct.set_attr_pf(ct, "l3proto", "inet")
	nfct.set_attr_ipproto(ct, "l4proto", "tcp")
	assert(nfct.set_attr_ipv4(ct, "ipv4-src", src))
	assert(nfct.set_attr_ipv4(ct, "ipv4-dst", dst))
	nfct.set_attr_port(ct, "port-src", sport)
	nfct.set_attr_port(ct, "port-dst", dport)
	return ct
end

local exp = nfct.exp_new(
	tcp(src, sport, dst, dport),
	tcp(src, 0, dst, expected),
	tcp("255.255.255.255", 0, "255.255.255.255", 65535), -- the source port does not count
	timeout or 30,
	unpack(arg, 7))

local h = assert(nfct.open "expect")
-- "create" would leave the timeout to the helper.
local ok, emsg, errno = nfct.exp_query(h, "create-update", exp)
if not ok then
	io.stderr:write("expect.lua: ", emsg, "\n")
	os.exit(1)
end
print(nfct.exp_tostring(exp, "new"))
