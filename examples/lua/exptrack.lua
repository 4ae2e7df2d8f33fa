-- exptrack watches the control connections of a protocol in a queue and lets the
-- connections that they announce through, as RELATED. What the protocol says is
-- known to a decoder module:
--
--   decoder.decode(payload, packet) -> { {proto = "tcp", dport = 5001, timeout = 30}, ... }
--
-- payload is what the packet carries, packet a table of its headers (nfq.packet).
-- See tracker.lua, which runs it, and decoders/echo.lua.

require "nfq"
require "nfct"

module("exptrack", package.seeall)

local function object(packet, proto, src, sport, dst, dport)
	local v6 = packet.family == "ipv6"
	local ct = assert(nfct.new())
	local set = v6 and nfct.set_attr_ipv6 or nfct.set_attr_ipv4
	local kind = v6 and "ipv6" or "ipv4"
	nfct.set_attr_pf(ct, "l3proto", v6 and "inet6" or "inet")
	nfct.set_attr_ipproto(ct, "l4proto", proto)
	assert(set(ct, kind .. "-src", src))
	assert(set(ct, kind .. "-dst", dst))
	nfct.set_attr_port(ct, "port-src", sport)
	nfct.set_attr_port(ct, "port-dst", dport)
	return ct
end

-- expect tells the kernel of a connection from the packet's sender to the
-- packet's receiver. It returns true, or nil and a reason.
local function expect(h, packet, wanted)
	local proto = wanted.proto or "tcp"
	local ip, l4 = packet.ip, packet.tcp or packet.udp
	local all = packet.family == "ipv6" and string.rep("ffff:", 7) .. "ffff" or "255.255.255.255"
	local exp = nfct.exp_new(
		object(packet, ip.proto, ip.src, l4.sport, ip.dst, l4.dport),
		object(packet, proto, ip.src, 0, ip.dst, wanted.dport),
		object(packet, proto, all, 0, all, 65535),
		wanted.timeout or 30)
	local ok, emsg = nfct.exp_query(h, "create-update", exp)
	return ok and true, emsg
end

-- open serves queue number queuenum until it fails, which it does not for a packet
-- whose expectation the kernel refuses: that is told by log.
function open(decode, queuenum, log)
	log = log or function(...) io.stderr:write(table.concat({...}, " "), "\n") end
	local exph = assert(nfct.open "expect")
	local h = assert(nfq.open())
	local q = assert(nfq.create_queue(h, queuenum or 0))
	assert(nfq.set_mode(q, "packet"))
	log("ready")
	return nfq.catch(h, function(qdata)
		local packet = nfq.packet(qdata)
		if not packet.payload or not (packet.tcp or packet.udp) then return "accept" end
		local ok, list = pcall(decode, packet.payload, packet)
		if not ok then
			log("decoder:", list)
			return "accept"
		end
		for _, wanted in ipairs(list or {}) do
			local done, emsg = expect(exph, packet, wanted)
			log("expect", wanted.proto or "tcp", wanted.dport, done and "made" or emsg)
		end
		return "accept"
	end)
end
